"""What a training is about to do, in one block before its first step."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from slimdet.data.coco import CocoDataset
from slimdet.data.summary import Summary, summarize
from slimdet.devices import bfloat16_units
from slimdet.messages import listed
from slimdet.training.recipes import as_flags

if TYPE_CHECKING:
    from slimdet.training.trainer import Trainer


_STARTS = {"imagenet": "ImageNet weights", "none": "random weights", "bundled": "the bundled detector"}


@dataclass(frozen=True)
class Plan:
    """What is about to be trained.

    Attributes:
        data: what the training set holds, objects called small, medium and large at the size that the widest width
            sees them; None where a data set of one's own was handed over.
        images, val_images: number of images to train and to validate on.
        classes: K names.
        detector: the kind of detector and its parts.
        parameters: of the widest width.
        sizes: shorter sides of the images that the widths see, in pixels, and the limit of the longer side.
        widths: those that are trained.
        steps, epochs, batch: of the training; images a step.
        device, threads: where it runs, on how many threads of the CPU.
        bf16: whether layers compute in bfloat16, and why.
        weights: where it starts.
        recipe: its name, and every value that recipes decide.
    """

    data: Summary | None
    images: int
    val_images: int
    classes: tuple[str, ...]
    detector: str
    parameters: int
    sizes: tuple[tuple[int, ...], int]
    widths: tuple[float, ...]
    steps: int
    epochs: float
    batch: int
    device: str
    threads: int
    bf16: str
    weights: str
    recipe: tuple[str, ...]

    def __str__(self) -> str:
        """The block, a line for each thing."""
        (*smaller, shorter), longest = self.sizes
        size = f"{smaller[0]} to {shorter}" if smaller else str(shorter)
        lines = {
            "data": f"{self.images} images to train on, {self.val_images or 'none'} to validate on",
            "classes": f"{len(self.classes)}: {listed(self.classes)}",
            "model": f"{self.detector}, {self.parameters / 1e6:.1f} M parameters at width 1.0; from {self.weights}",
            "widths": ", ".join(map(str, self.widths)),
            "images": f"resized to {size} pixels (shorter side; longer side at most {longest})",
            "steps": f"{self.steps} of {self.batch} images, {self.epochs:g} epochs",
            "device": f"{self.device}, {self.threads} threads; bfloat16: {self.bf16}",
            "recipe": f"\n{' ' * 9}".join(_wrapped(self.recipe)),
        }
        if self.data is not None:
            small, medium, large = (f"{share:.0%}" for share in (self.data.small, self.data.medium, self.data.large))
            shares = f"at the size of training {small} small (below 32 x 32 pixels), {medium} medium, {large} large"
            lines["data"] += f" ({self.data.empty} without objects)" if self.data.empty else ""
            lines["objects"] = f"{self.data.boxes}; {shares}"
        order = ("data", "objects", "classes", "model", "widths", "images", "steps", "device", "recipe")
        return "\n".join(f"{name:<8} {lines[name]}" for name in order if name in lines)


def _wrapped(flags: Sequence[str]) -> list[str]:
    """Lines of flags, each beside its value."""
    glued = " ".join(flag.replace(" ", "\xa0") for flag in flags)
    return [line.replace("\xa0", " ") for line in textwrap.wrap(glued, 110, break_on_hyphens=False)]


def plan(state: "Trainer") -> Plan:
    """What a training is about to do."""
    settings, detector = state.settings, state.model.twin(1.0)
    transform: Any = detector.get_submodule("transform")
    size = (int(transform.min_size[-1]), int(transform.max_size))
    known = isinstance(state.dataset, CocoDataset)
    described = getattr(detector, "architecture", None)
    parts = [type(detector).__name__]
    if described:  # of slimdet's own builders
        parts = [described["builder"], described["backbone"], f"{described['neck']} neck"]
    return Plan(
        data=summarize(state.dataset.coco, size) if known else None,
        images=len(state.dataset),
        val_images=0 if state.val is None else len(state.val),
        classes=tuple(state.dataset.classes),
        detector=", ".join(parts),
        parameters=sum(parameter.numel() for parameter in detector.parameters()),
        sizes=(settings.sizes or size[:1], size[1]),
        widths=settings.widths,
        steps=state.total,
        epochs=settings.epochs,
        batch=settings.batch,
        device=str(state.device),
        threads=torch.get_num_threads(),
        bf16=_bf16(settings.bf16, state.device),
        weights=_STARTS.get(settings.weights, settings.weights) if described else "the weights it has",
        recipe=(f"{settings.recipe}:", *as_flags(settings, ready=not described)),
    )


def _bf16(wanted: bool, device: torch.device) -> str:
    able = bfloat16_units(device)
    if wanted:
        return "yes" if able else "yes, but this device has no instructions for it and is slower with it"
    return "no; --bf16 makes it faster here" if able else "no; this device has no instructions for it"
