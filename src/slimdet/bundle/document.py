"""model.json as a document: read from whoever made it, and refused where it could not be one of a bundle.

Legend: K classes, W widths.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from slimdet.bundle.ladder import Latencies, Rung
from slimdet.errors import BundleError, WidthError
from slimdet.messages import first_line
from slimdet.widths import parse_plan, parse_width, parse_widths

FORMAT = 1
MODEL = "model.json"
LONGEST_NAME = 255  # bytes; what file systems have
MOST_BYTES = 2**24  # of the file: one of 1000 classes and 100 rungs has a hundredth
MOST_WIDTHS = 1000
_KINDS: dict[str, Any] = {
    "format": int,
    "architecture": dict,
    "classes": list,
    "category_ids": list,
    "widths": list,
    "scope": (str, dict),
    "weights": dict,
}
_OPTIONAL = {"norms": str, "plans": dict, "calibrations": dict, "metrics": dict, "training": dict}
_ENGINE = ("file", "sha256", "weights")


def read_document(file: Path) -> dict[str, Any]:
    """Read and check a model.json.

    Raises:
        BundleError: it is damaged, foreign, of a newer format, or of values that no bundle has.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MB")
        document = json.loads(content, parse_float=_real, parse_int=_whole, parse_constant=_real)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read: {first_line(error)}") from None
    _check_document(file, document)
    return document


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is no number that a bundle has")
    return value


def _whole(text: str) -> int:
    if len(text) > 19:  # 64 bits
        raise ValueError(f"{text[:10]}... is a number of {len(text)} digits")
    return int(text)


def _check_document(file: Path, document: Any) -> None:
    def refuse(reason: str) -> NoReturn:
        raise BundleError(f"{file}: {reason}")

    if not isinstance(document, dict) or any(key not in document for key in _KINDS):
        raise BundleError(f"{file} is not a slimdet model: it needs {', '.join(_KINDS)}")
    if document["format"] != FORMAT:
        raise BundleError(f"{file} has format {document['format']!r:.80}, this slimdet reads {FORMAT}; update slimdet")
    given_optional = {key: kind for key, kind in _OPTIONAL.items() if document.get(key) is not None}
    for key, kind in (_KINDS | given_optional).items():
        if not isinstance(document[key], kind):
            refuse(f"{key} is {document[key]!r:.80}, of a kind that does not belong there")
    _check_classes(document, refuse)
    weights = document["weights"]
    if not (_is_file_name(weights.get("file")) and isinstance(weights.get("sha256"), str)):
        refuse("weights needs a file and its sha256")
    widths = document["widths"]
    try:
        if not all(_is_width(width) for width in widths) or len(widths) > MOST_WIDTHS:
            raise WidthError("not numbers in (0, 1]")
        parse_widths(widths)
        for width, plan in (document.get("plans") or {}).items():
            parse_width(width)
            parse_plan(plan)
    except WidthError as error:
        refuse(f"widths are {widths!r:.200}: {error!s:.200}")
    _check_engines(file, document.get("engines", {}))
    _check_ladder(file, document)


def _check_classes(document: dict[str, Any], refuse: Any) -> None:
    """[K] names and [K] ids, as many as the detector has labels; a name is what JSON has for text."""
    classes, ids = document["classes"], document["category_ids"]
    if not classes or not all(isinstance(name, str) for name in classes):
        refuse(f"classes are {classes!r:.80}, not names")
    if len(classes) != len(ids) or not all(type(number) is int for number in ids):
        refuse(f"{len(classes)} classes but {len(ids)} ids; each class needs one, a whole number")
    labels = document["architecture"].get("num_classes")
    if labels is not None and labels != len(classes) + 1:
        refuse(f"{len(classes)} classes, but num_classes of the architecture is {labels!r:.80}: one more is right")
    if not all(_is_mapping(values) for values in (document.get("metrics") or {}).values()):
        refuse("metrics are not numbers by name, by kind and by width")


def _is_mapping(value: Any) -> bool:
    """Whether a width's metrics are {"bbox": {"AP": 0.3, ...}, ...}."""
    return isinstance(value, dict) and all(isinstance(one, dict) for one in value.values())


def _is_width(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 < value <= 1


def _check_engines(file: Path, engines: Any) -> None:
    """{"onnx": {"0.25": {"file", "sha256", "weights" (the sha256 of those it was made from)}, ...}, ...}

    An entry of "openvino" also has "bin_sha256", of the weights file beside it; one of 8 bits "speedup", against fp32.
    """
    kinds: Iterable[Any] = engines.values() if isinstance(engines, dict) else [None]
    for entries in kinds:
        if not isinstance(entries, dict) or not all(_is_engine(*item) for item in entries.items()):
            raise BundleError(f"{file}: engines are not widths with {', '.join(_ENGINE)}; export them again")


def _is_engine(width: str, entry: Any) -> bool:
    try:
        texts = [entry[key] for key in _ENGINE] + [entry.get("bin_sha256", "")]
        named = _is_file_name(entry["file"]) and all(isinstance(text, str) for text in texts)
        return _is_width(float(width)) and named and entry.get("speedup", 1) > 0
    except (TypeError, ValueError, KeyError, AttributeError):
        return False


def _is_file_name(text: Any) -> bool:
    """Whether a file system could have it; where the file may lie is decided when it is opened."""
    return isinstance(text, str) and bool(Path(text).name) and len(text.encode(errors="replace")) <= LONGEST_NAME


def _check_ladder(file: Path, document: dict[str, Any]) -> None:
    """The ladder, [rung, ...], and the latencies by machine, in the form of `slimdet.bundle.ladder`."""
    rungs, machines = document.get("ladder", []), document.get("latencies", {})
    try:
        if not isinstance(rungs, list) or not isinstance(machines, dict):
            raise BundleError("ladder and latencies are no list and no mapping")
        for entry in machines.values():
            Latencies.of(entry)
        for width in (Rung.of(entry).point.width for entry in rungs):
            if width not in map(float, document["widths"]):
                raise BundleError(f"the ladder has width {width}, the model does not")
    except BundleError as error:
        raise BundleError(f"{file}: {error}; make the ladder anew with 'slimdet tune'") from error
