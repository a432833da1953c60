"""model.json, the part of a bundle that says what is in it: read and checked, without torch.

Legend: K classes, W widths.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from slimdet.bundle.document import MODEL, read_document
from slimdet.bundle.inspection import check_engine
from slimdet.bundle.ladder import Latencies, Precision, Rung
from slimdet.errors import BundleError, WidthError
from slimdet.files import restore_folder
from slimdet.messages import printable

logger = logging.getLogger("slimdet")

WEIGHTS = "weights.safetensors"
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
        return tuple(map(printable, self.document["classes"]))

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
        return {float(width): plan for width, plan in (self.document.get("plans") or {}).items()}

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
        with self._opened(self.document["weights"]["file"]) as file:
            content = file.read()
        self._check_sha256(self.weights_file, hashlib.sha256(content).hexdigest(), self.weights_sha256)
        return content

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
        return list(self._engine(kind, width))

    @contextmanager
    def opening(self, kind: str, width: float) -> Iterator[list[Path]]:
        """The files that `engine` gives, for a block in which an engine opens them.

        They were looked into (`slimdet.bundle.inspection`), and are at the block's end the ones that were checked.

        Raises:
            BundleError: as `engine`; they hold what no export writes, or were changed meanwhile.
        """
        files = self._engine(kind, width)
        check_engine(list(files))
        yield list(files)
        for file, stamp in files.items():
            if _stamp(file.stat()) != stamp:
                raise BundleError(f"{file} was changed while it was opened; try it again")

    def best(self, kind: str, width: float) -> Precision:
        """The precision that `kind` of engine file, "onnx" or "openvino", runs a width best in: as measured, or "fp32".

        8 bits are better where they are faster; whether they cost accuracy was decided when they were exported.
        """
        entry = self.document.get("engines", {}).get(kind + INT8, {}).get(str(round(float(width), 4)), {})
        faster = entry.get("weights") == self.weights_sha256 and entry.get("speedup", 0) > 1
        return "int8" if faster else "fp32"

    def _engine(self, kind: str, width: float) -> dict[Path, tuple[int, ...]]:
        """As `engine`, each file with the stamp that it had when it was checked."""
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
        file = self.folder / entry["file"]
        files = {file: self._checked(entry["file"], entry["sha256"])}
        if kind.removesuffix(INT8) == "openvino":
            if "bin_sha256" not in entry:
                raise BundleError(f"{self.name}: {entry['file']} has no sha256 of its .bin; make it anew with '{way}'")
            values = file.with_suffix(".bin")
            files[values] = self._checked(values.name, entry["bin_sha256"])
        elif self.weights_file.name.encode() in file.read_bytes():  # ONNX names the files of external data as they are
            files[self.weights_file] = self._checked(self.weights_file.name, self.weights_sha256)
        return files

    def _checked(self, name: str, sha256: str) -> tuple[int, ...]:
        """The stamp of the file of this name in the bundle's own folder, which must have this sha256."""
        with self._opened(name) as content:
            stamp = _stamp(os.fstat(content.fileno()))
        self._check_sha256(self.folder / name, _digest(self.folder / name, stamp), sha256)
        return stamp

    def _opened(self, name: str) -> BinaryIO:
        """The file of this name in the bundle's own folder, no link."""
        file = self.folder / name
        if file.is_symlink():
            raise BundleError(f"{file} is a link; a bundle's files lie in its folder: copy them with cp -rL")
        if Path(name).name != name or not file.is_file():
            raise BundleError(f"{self.name} lacks its file {name!r}; get the bundle again")
        return file.open("rb")

    def _check_sha256(self, file: Path, found: str, sha256: str) -> None:
        if found != sha256:
            raise BundleError(
                f"{file} is not the file that {MODEL} describes (its sha256 differs); get the bundle again"
            )


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """By what a file is known to be still the same."""
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


@lru_cache(maxsize=32)
def _digest(file: Path, stamp: tuple[int, ...]) -> str:  # the widths share a file of weights: it is read once
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
    return Manifest(folder, str(path), read_document(file))
