"""model.json, the part of a bundle that says what is in it: read and checked, without torch.

Legend: K classes, W widths.
"""

import hashlib
import json
import logging
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from slimdet.bundle.ladder import Latencies, Precision, Rung
from slimdet.errors import BundleError, WidthError
from slimdet.files import restore_folder
from slimdet.messages import first_line

logger = logging.getLogger("slimdet")

FORMAT = 1
MODEL, WEIGHTS = "model.json", "weights.safetensors"
_KINDS: dict[str, Any] = {
    "format": object,
    "architecture": dict,
    "classes": list,
    "category_ids": list,
    "widths": list,
    "scope": (str, dict),
    "weights": dict,
}
_ENGINE = ("file", "sha256", "weights")
INT8 = "-int8"  # ends the kind of engine files in 8 bits: "onnx-int8"


def bundled() -> Path:
    """The folder of the model that ships with the package, called `bundled` on the command line."""
    return Path(__file__).parents[1] / "assets" / "bundled" / "animals"


@dataclass(frozen=True)
class Manifest:
    """What a bundle's model.json says.

    Attributes:
        folder: the bundle's folder.
        name: the bundle as its user named it: a path, or "bundled".
        document: the whole of model.json.
    """

    folder: Path
    name: str
    document: dict[str, Any]

    @property
    def architecture(self) -> dict[str, Any]:
        """The detector's builder with its arguments and settings."""
        return self.document["architecture"]

    @property
    def classes(self) -> tuple[str, ...]:
        """[K], names of the labels 1..K."""
        return tuple(self.document["classes"])

    @property
    def category_ids(self) -> tuple[int, ...]:
        """[K], ids of the labels in the data set's annotations."""
        return tuple(self.document["category_ids"])

    @property
    def widths(self) -> tuple[float, ...]:
        """[W], ascending; the last is 1.0."""
        return tuple(sorted(float(width) for width in self.document["widths"]))

    @property
    def scope(self) -> str | dict[str, Any]:
        """The name of a known scope, or the fields of one of the user's own."""
        return self.document["scope"]

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured, by width: {"0.25": {"bbox": {"AP": ...}}}."""
        return self.document.get("metrics") or {}

    @property
    def training(self) -> dict[str, Any]:
        """Settings that made the weights."""
        return self.document.get("training") or {}

    @property
    def calibrations(self) -> dict[str, Any]:
        """How the statistics of a width were collected, by width."""
        return self.document.get("calibrations") or {}

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """Operating points that are worth having, cheapest first; each was measured."""
        return tuple(map(Rung.of, self.document.get("ladder", ())))

    @property
    def latencies(self) -> dict[str, Latencies]:
        """How long points take, by machine, as `slimdet.runtime.machine` names it."""
        entries = self.document.get("latencies", {})
        return {machine: Latencies.of(entry) for machine, entry in entries.items()}

    @property
    def norm_sharing(self) -> str:
        """What the widths' norms share, as `slimdet.slim` takes it."""
        return self.document.get("norms", "own")

    @property
    def plans(self) -> dict[float, dict[str, float]]:
        """Widths by stage, for widths that are plans."""
        return {float(width): plan for width, plan in self.document.get("plans", {}).items()}

    @property
    def weights_file(self) -> Path:
        return self.folder / self.document["weights"]["file"]

    @property
    def weights_sha256(self) -> str:
        return self.document["weights"]["sha256"]

    def weights(self) -> bytes:
        """The weights file's bytes, checked against the recorded sha256.

        Raises:
            BundleError: the file is missing or another one.
        """
        return self._checked(self.document["weights"]["file"], self.weights_sha256).read_bytes()

    def check_width(self, width: float) -> float:
        """The width, rounded as widths are stored.

        Raises:
            WidthError: the bundle does not have it.
        """
        value = round(float(width), 4)
        if value not in self.widths:
            known = ", ".join(map(str, self.widths))
            way = f"slimdet calibrate --model {self.name} --data DATA.yaml --width {value}"
            raise WidthError(f"width {value} is not one of {known}; add it with '{way}'")
        return value

    @property
    def files(self) -> set[str]:
        """Names of the files that the bundle consists of; an OpenVINO engine has a .bin file too."""
        engines = [entry for entries in self.document.get("engines", {}).values() for entry in entries.values()]
        names = {entry["file"] for entry in engines}
        binaries = {Path(entry["file"]).with_suffix(".bin").name for entry in engines if "bin_sha256" in entry}
        return {MODEL, self.document["weights"]["file"], *names, *binaries}

    def engines(self, kind: str) -> tuple[float, ...]:
        """The widths that were exported as `kind`, "onnx", "openvino", "onnx-int8" or "openvino-int8", ascending."""
        return tuple(sorted(float(width) for width in self.document.get("engines", {}).get(kind, {})))

    def engine(self, kind: str, width: float) -> list[Path]:
        """The files of one width's engine, the one to open first; checked against what was recorded at its export.

        After it come the weights: OpenVINO's own (.bin), or the bundle's where an ONNX file is linked to them.

        Raises:
            BundleError: there is none, a file is missing or another one, or it was made from other weights.
            WidthError: the bundle does not have the width.
        """
        width = self.check_width(width)
        entry = self.document.get("engines", {}).get(kind, {}).get(str(width))
        way = f"slimdet export --model {self.name} --format {kind.removesuffix(INT8)}"
        way += " --int8 --data DATA.yaml" if kind.endswith(INT8) else ""
        if entry is None:
            raise BundleError(
                f"{self.name} has no {kind} engine of width {width}; make it with '{way}', or take engine torch"
            )
        if entry["weights"] != self.weights_sha256:
            raise BundleError(f"{self.name}: {entry['file']} was made from other weights; make it anew with '{way}'")
        file = self._checked(entry["file"], entry["sha256"])
        if kind.removesuffix(INT8) == "openvino":
            if "bin_sha256" not in entry:
                raise BundleError(f"{self.name}: {entry['file']} has no sha256 of its .bin; make it anew with '{way}'")
            return [file, self._checked(file.with_suffix(".bin").name, entry["bin_sha256"])]
        # ONNX names the files of external data as they are.
        linked = self.weights_file.name.encode() in file.read_bytes()
        return [file, self._checked(self.weights_file.name, self.weights_sha256)] if linked else [file]

    def best(self, kind: str, width: float) -> Precision:
        """The precision that `kind` of engine file, "onnx" or "openvino", runs a width best in: as measured, or "fp32".

        8 bits are better where they are faster; whether they cost accuracy was decided when they were exported.
        """
        entry = self.document.get("engines", {}).get(kind + INT8, {}).get(str(round(float(width), 4)), {})
        faster = entry.get("weights") == self.weights_sha256 and entry.get("speedup", 0) > 1
        return "int8" if faster else "fp32"

    def _checked(self, name: str, sha256: str) -> Path:
        """The file of this name in the bundle's own folder, which must have this sha256."""
        file = self.folder / name
        if Path(name).name != name or not file.is_file():
            raise BundleError(f"{self.name} lacks its file {name!r}; get the bundle again")
        found = file.stat()
        if _digest(file, found.st_mtime_ns, found.st_size) != sha256:
            raise BundleError(
                f"{file} is not the file that {MODEL} describes (its sha256 differs); get the bundle again"
            )
        return file


@lru_cache(maxsize=32)
def _digest(file: Path, changed: int, size: int) -> str:  # the widths share a file of weights: it is read once
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read(path: str | Path) -> Manifest:
    """Read and check the model.json of a bundle: a folder, or "bundled".

    Raises:
        BundleError: there is none, or it is damaged, foreign or of a newer format.
    """
    folder = bundled() if str(path) == "bundled" else Path(path)
    if restore_folder(folder):
        logger.warning("%s was being replaced when the writer was killed; it is the bundle before that again", path)
    file = folder / MODEL
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: there is no {MODEL} in it")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{file} cannot be read: {first_line(error)}") from error
    _check_document(file, document)
    return Manifest(folder, str(path), document)


def _check_document(file: Path, document: Any) -> None:
    if not isinstance(document, dict) or any(key not in document for key in _KINDS):
        raise BundleError(f"{file} is not a slimdet model: it needs {', '.join(_KINDS)}")
    if document["format"] != FORMAT:
        raise BundleError(f"{file} has format {document['format']!r}, this slimdet reads {FORMAT}; update slimdet")
    for key, kind in _KINDS.items():
        if not isinstance(document[key], kind):
            raise BundleError(f"{file}: {key} is {document[key]!r}, of a kind that does not belong there")
    if len(document["classes"]) != len(document["category_ids"]):
        raise BundleError(f"{file}: {len(document['classes'])} classes but {len(document['category_ids'])} ids")
    if not all(isinstance(document["weights"].get(key), str) for key in ("file", "sha256")):
        raise BundleError(f"{file}: weights needs a file and its sha256")
    widths = document["widths"]
    if not all(_is_width(width) for width in widths) or 1.0 not in widths:
        raise BundleError(f"{file}: widths are {widths!r}, not numbers in (0, 1] with 1.0 among them")
    _check_engines(file, document.get("engines", {}))
    _check_ladder(file, document)


def _is_width(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 < value <= 1


def _check_engines(file: Path, engines: Any) -> None:
    """{"onnx": {"0.25": {"file", "sha256", "weights" (the sha256 of those it was made from)}, ...}, ...}

    An entry of "openvino" also has "bin_sha256", of the weights file beside it; one of 8 bits "speedup", against fp32.
    """
    kinds = engines.values() if isinstance(engines, dict) else [None]
    for entries in kinds:
        if not isinstance(entries, dict) or not all(_is_engine(*item) for item in entries.items()):
            raise BundleError(f"{file}: engines are not widths with {', '.join(_ENGINE)}; export them again")


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


def _is_engine(width: str, entry: Any) -> bool:
    try:
        return (
            _is_width(float(width))
            and all(isinstance(entry[key], str) for key in _ENGINE)
            and float(entry.get("speedup", 1)) > 0
        )
    except (TypeError, ValueError, KeyError):
        return False
