"""What `slimdet convert` does with what it is given: data sets become COCO, the original's checkpoints bundles, and
ordinary detectors slimmable."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimdet.bundle import store
from slimdet.data.formats.convert import to_coco
from slimdet.data.formats.recognition import read_foreign
from slimdet.errors import ConfigError
from slimdet.files import new_run_dir

if TYPE_CHECKING:
    from slimdet.training.runs import Training


@dataclass(frozen=True)
class Conversion:
    """What was written, by name: of a data set "train", "val" and "data"; otherwise "bundle" or "checkpoint"."""

    files: dict[str, Path]
    why: str = ""  # what a data set was taken for
    notes: Sequence[str] = ()  # what was left out of it, or taken as something


def convert(source: Path, to: str | None = None, out: Path | None = None, config: Path | None = None) -> Conversion:
    """Convert a data set to COCO, a checkpoint of the original system to a bundle, or such a bundle to a checkpoint.

    Args:
        source: a YOLO or VOC data set, a checkpoint file, or a bundle.
        to: "coco", "bundle" or "checkpoint"; by default what the source can become.
        out: the folder to write (for a checkpoint the file); by default `runs/convert-N`.
        config: the original's config file that a checkpoint belongs to; by default the one of its five that fits.

    Raises:
        ConfigError: the source cannot become that.
        DataError, WeightsError, BundleError: the source is malformed.
    """
    possible = _becomes(source)
    if to not in (None, possible):
        raise ConfigError(f"{source} can become a {possible}, not --to {to}")
    if config is not None and possible != "bundle":
        raise ConfigError(f"--config {config} belongs to a checkpoint (.pth); {source} is none")
    if possible == "coco":
        found = read_foreign(source)
        with _new_folder(out) as folder:
            return Conversion(to_coco(found, folder), found.why, found.findings.notes)
    from slimdet.original import bundles as original

    if possible == "bundle":
        with _new_folder(out) as folder:
            return Conversion({"bundle": original.to_bundle(source, folder, config)})
    file = out or new_run_dir("convert") / "checkpoint.pth"
    if file.exists():
        raise ConfigError(f"--out {file} already exists; choose another file or remove it")
    return Conversion({"checkpoint": original.to_checkpoint(source, file)})


def slimmable(source: str, out: Path | None, config: Path | None, fields: Mapping[str, Any]) -> "Training":
    """Train a detector to be slimmable, shown as a training is.

    Args:
        source, out, fields: as `slimdet.training.conversion.make_slimmable` takes them; `data` is one of the fields.
        config: refused.

    Raises:
        ConfigError: there is no data to train on, or a file of config that belongs to nothing.
        others: as `make_slimmable`.
    """
    if config is not None:
        raise ConfigError(f"--config {config} belongs to a checkpoint of the original's, not to --to slimmable")
    if "data" not in fields:
        raise ConfigError("--data is missing: the images and annotations on which the detector teaches all widths")
    from slimdet.cli.live import training_view
    from slimdet.report.training import RunPictures
    from slimdet.training.conversion import make_slimmable
    from slimdet.training.watching.callbacks import Guarded

    with training_view() as view:
        return make_slimmable(source, out=out, callbacks=[Guarded(RunPictures()), view], **fields)


@contextmanager
def _new_folder(out: Path | None) -> Iterator[Path]:
    """The folder to write to; what could not be converted leaves none behind."""
    made = out is None or not out.exists()
    folder = new_run_dir("convert", out)
    try:
        yield folder
    finally:
        if made and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _becomes(source: Path) -> str:
    if source.suffix.lower() in (".pth", ".pt", ".pkl"):
        return "bundle"
    return "checkpoint" if (source / store.MODEL).is_file() else "coco"
