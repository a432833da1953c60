"""Photographs that ship with the package and may be redistributed; README.md beside them says whose they are."""

from pathlib import Path

_HERE = Path(__file__).parent

PHOTOGRAPHS = _HERE / "photographs"
"""The pictures of the demonstration; their boxes are in `photographs.json` among them (COCO instances)."""

VAL = _HERE / "val"
"""A small validation set of the same classes: `instances_val.json` and the folder `images`."""
