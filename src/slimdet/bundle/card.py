"""The card of a bundle: its classes, and what was measured, each number bound to the weights that it is true of.

What ties them is a digest of each width: of the tensors that it computes with, by name, as float32. It does not depend
on how they are stored, nor on what belongs to other widths, so that a width that is added leaves the others' numbers
standing.

Legend: K classes.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.bundle import manifest
from slimdet.bundle.ladder import Latencies, Rung
from slimdet.errors import BundleError, WidthError
from slimdet.files import atomic_write
from slimdet.messages import listed
from slimdet.widths import width_key

_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}

logger = logging.getLogger("slimdet")


@dataclass(frozen=True)
class Card:
    """What a bundle says of its model, apart from how it is built.

    Attributes:
        classes: [K], names of the labels 1..K; empty: "1", "2", ...
        category_ids: [K], ids of the labels in the data set's annotations; empty: 1..K.
        training: settings that made the weights.
        metrics: what was measured, by width: {"0.25": {"bbox": {"AP": ...}}}.
        calibrations: how the statistics of a width were collected, by width.
        ladder: the operating points worth having, cheapest first; each says itself which weights it is true of.
        latencies: how long they take, by machine.
        weights: the digest of the weights that metrics and calibrations of a width belong to, by width. `record` sets
            it; what has none is not saved.

    Raises:
        BundleError: not one category id for each class.
    """

    classes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    calibrations: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    ladder: tuple[Rung, ...] = ()
    latencies: Mapping[str, Latencies] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "category_ids", tuple(self.category_ids) or tuple(range(1, len(self.classes) + 1)))
        if len(self.classes) != len(self.category_ids):
            raise BundleError(
                f"{len(self.classes)} classes but {len(self.category_ids)} category ids; give one id for each class"
            )

    def record(
        self,
        weights: Mapping[str, str],
        metrics: Mapping[str, Any] | None = None,
        calibrations: Mapping[str, Any] | None = None,
    ) -> "Card":
        """The card with numbers of these weights; what it said of a recorded width's earlier weights goes.

        Args:
            weights: digests of the model that was measured, as `slimdet.bundle.store.weights_of` gives them.
            metrics, calibrations: by width, in the form of the attributes.

        Raises:
            WidthError: numbers of a width that the model does not have.
        """
        metrics, calibrations = metrics or {}, calibrations or {}
        fresh = metrics.keys() | calibrations.keys()
        if foreign := sorted(fresh - weights.keys()):
            raise WidthError(f"numbers of width {foreign[0]}, where the model has {listed(sorted(weights))}")
        kept = self._only(
            set(self._measured()) - {width for width in fresh if self.weights.get(width) != weights[width]}
        )
        return replace(
            kept,
            metrics={**kept.metrics, **metrics},
            calibrations={**kept.calibrations, **calibrations},
            weights={**kept.weights, **{width: weights[width] for width in fresh}},
        )

    def true_of(self, weights: Mapping[str, str]) -> "Card":
        """The card without numbers of other weights than these, or of engine files; which were dropped is logged.

        A rung in 8 bits is one of an engine file, which does not outlive the weights' file that it was made from.
        """
        true = {width for width in self._measured() if width in weights and self.weights.get(width) == weights[width]}
        if dropped := sorted(self._measured() - true):
            logger.warning("the numbers of width %s are of other weights and are left out", listed(dropped))
        rungs = [rung for rung in self.ladder if weights.get(str(rung.point.width)) == rung.weights]
        rungs = [rung for rung in rungs if rung.point.precision != "int8"]
        if lost := len(self.ladder) - len(rungs):
            logger.warning("%d points of the ladder are of other weights or of engine files and are left out", lost)
        return replace(self._only(true), ladder=tuple(rungs), latencies=_of_rungs(self.latencies, rungs))

    def _measured(self) -> set[str]:
        return {*self.metrics, *self.calibrations}

    def _only(self, widths: set[str]) -> "Card":
        parts = {name: getattr(self, name) for name in ("metrics", "calibrations", "weights")}
        return replace(self, **{n: {w: v for w, v in part.items() if w in widths} for n, part in parts.items()})


def read(path: str | Path) -> Card:
    """Read the card of a bundle, a folder or "bundled", bound to the bundle's weights.

    Raises:
        BundleError: the folder is no bundle, or its weights are not those that it describes.
    """
    described = manifest.read(path)
    return Card(
        described.classes,
        described.category_ids,
        described.training,
        described.metrics,
        described.calibrations,
        digests(described.weights(), described.widths),
        described.ladder,
        described.latencies,
    )


def write_ladder(path: str | Path, ladder: Sequence[Rung], machine: str, latencies: Latencies) -> None:
    """Give a bundle another ladder, with the latencies of one machine; all else in it stays.

    Latencies of other machines stay where the ladder still has their points.

    Args:
        path: the bundle's folder.
        ladder: cheapest first.
        machine: as `slimdet.runtime.machine.machine_key` names it.
        latencies: of the ladder's points.

    Raises:
        BundleError: the folder is no bundle, or its weights are others than those that the rungs are true of.
    """
    described = manifest.read(path)
    weights = digests(described.weights(), described.widths)
    if foreign := [rung.point for rung in ladder if weights.get(str(rung.point.width)) != rung.weights]:
        raise BundleError(f"{path} changed while it was measured: {foreign[0]} is of other weights; tune it again")
    others = _of_rungs(described.latencies, ladder)
    merged = others | {machine: latencies}
    changes = {
        "ladder": [rung.entry for rung in ladder],
        "latencies": {name: one.entry for name, one in merged.items()},
    }
    _write(described, changes)


def write_latencies(path: str | Path, latencies: Mapping[str, Latencies]) -> None:
    """Give a bundle latencies by machine; those that it has of the same machines go, all else in it stays.

    Raises:
        BundleError: the folder is no bundle.
    """
    described = manifest.read(path)
    merged = described.latencies | dict(latencies)
    _write(described, {"latencies": {name: one.entry for name, one in merged.items()}})


def _write(described: manifest.Manifest, changes: Mapping[str, Any]) -> None:
    with atomic_write(described.folder / manifest.MODEL) as temporary:
        text = json.dumps({**described.document, **changes}, indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _of_rungs(latencies: Mapping[str, Latencies], ladder: Sequence[Rung]) -> dict[str, Latencies]:
    """The timings of a ladder's points alone; a machine that has none of them is left out."""
    points = {rung.point for rung in ladder}
    kept = {
        machine: replace(one, points=tuple(timing for timing in one.points if timing.point in points))
        for machine, one in latencies.items()
    }
    return {machine: one for machine, one in kept.items() if one.points}


def digests(content: bytes, widths: Iterable[float]) -> dict[str, str]:
    """Return a digest of each width, {"0.25": sha256}, of a weights file's content.

    Raises:
        BundleError: the content is not in the format of safetensors.
    """
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        tensors = {name: _tensor_digest(entry, memoryview(content)[start:]) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError("the weights are not in the format of safetensors; get the bundle again") from error
    widest = sorted(name for name in tensors if not name.startswith("twins."))
    found = {}
    for width in widths:
        prefix = f"twins.{width_key(width)}."
        lines = [f"{name} {tensors.get(prefix + name, tensors[name])}\n" for name in widest]
        found[str(width)] = sha256("".join(lines).encode()).hexdigest()
    return found


def _tensor_digest(entry: Mapping[str, Any], data: memoryview) -> str:
    stored, dtype = data[slice(*entry["data_offsets"])], entry["dtype"]
    if dtype == "BF16":  # the upper half of a float32
        values = np.frombuffer(stored, "<u2").astype("<u4") << 16
    elif dtype in _FLOATS:
        values = np.frombuffer(stored, _FLOATS[dtype]).astype("<f4", copy=False)
    else:
        values = np.frombuffer(stored, np.uint8)
    return f"{entry['shape']} {sha256(values.data).hexdigest()}"
