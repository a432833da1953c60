"""Photographs and a font that ship with the package and may be redistributed; README.md says whose they are."""

from pathlib import Path

_HERE = Path(__file__).parent

PHOTOGRAPHS = _HERE / "photographs"
"""The pictures of the demonstration; their boxes are in `photographs.json` among them (COCO instances)."""

LABELS_FONT = _HERE / "fonts" / "labels.ttf"
"""Letters of the Latin alphabets, Greek and Cyrillic: a part of DejaVu Sans, made with fontTools' pyftsubset."""

VAL = _HERE / "val"
"""A small validation set of the same classes: `instances_val.json` and the folder `images`."""
