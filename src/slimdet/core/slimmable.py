"""One detector at many widths, with one set of weights.

Each width is the ordinary detector built narrower, a *twin*. Its convolutions and linears hold the same Parameter
objects as the widest detector and compute with their leading corner `weight[:out, :in]`; its norms are its own
("Slimmable Neural Networks", ICLR 2019, section 3.2: switchable batch norm), or share weight and bias too and own
their statistics alone ("Universally Slimmable Networks", ICCV 2019, section 3.1), so that any width can be trained.
The width is read once, in `Slimmable.forward`; nothing below knows it.

Letters: B images, C channels of a layer in the widest detector, w width.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from slimdet.core.checks import check_layers, check_scope
from slimdet.core.scopes import Scope, get_scope
from slimdet.core.sliced import Sliced
from slimdet.core.twins import build_twin, own_tensors
from slimdet.errors import UnknownLayerError, WidthError
from slimdet.messages import check_choice
from slimdet.widths import parse_plan, parse_width, parse_widths, width_key

NORM_SHARING = ("own", "shared")
PASSING_TWINS = 32  # as many as there are widths to draw from


class Slimmable(nn.Module):
    """One detector at several widths; built by `slim`.

    `state_dict()` holds the widest detector's ordinary keys, and under `twins.0_25.` and so on what belongs to each
    other width: its norms, and its biases where the scope says so. Every shared tensor is named once. Conversion
    (`.to`, `.half`, `.to_empty`), loading (also with `assign=True`), deep copies, `torch.save`, weight averaging and
    one optimizer over `parameters()` keep the sharing.

    Attributes:
        scope, norm_sharing: as `slim` took them.
        plans: widths by stage, of the widths that are plans.
        borrowed: added widths whose statistics are still the next wider's, see `add`.
    """

    _widest: nn.Module
    twins: nn.ModuleDict

    def __init__(
        self, detector: nn.Module, scope: Scope, norm_sharing: str = "own", example: tuple[Any, ...] | None = None
    ) -> None:
        super().__init__()
        self.norm_sharing = norm_sharing
        self.plans: dict[float, dict[str, float]] = {}
        self._example = example
        self.borrowed: set[float] = set()
        self._passing: dict[float, nn.Module] = {}  # twins of widths that training draws; they keep no statistics
        # The detector's parts are this module's parts, so that the widest's state dict keys are the ordinary ones;
        # the detector object itself stays out of the module tree.
        object.__setattr__(self, "_widest", detector)
        self.scope = scope
        taken = {*dir(self), "twins"}
        for name, child in detector.named_children():
            if name in taken:
                raise UnknownLayerError(f"{name!r}, a part of the detector, is a name that Slimmable uses; rename it")
            self.add_module(name, child)
        self.twins = nn.ModuleDict()
        self.training = detector.training
        self.register_load_state_dict_post_hook(_loaded)

    @property
    def widths(self) -> tuple[float, ...]:
        """All widths, ascending; the last is 1.0."""
        return (*sorted(float(key.replace("_", ".")) for key in self.twins), 1.0)

    def twin(self, width: float) -> nn.Module:
        """Return the live detector of one width: weights shared with the others, norms its own.

        In training, a model with shared norms has any width. Writing in place through a twin's weights writes the
        shared ones.

        Raises:
            WidthError: the model does not have this width.
        """
        value = parse_width(width)
        if value == 1.0:
            return self._widest
        key = width_key(value)
        if key in self.twins:
            return self.twins[key]
        if self.training and self.norm_sharing == "shared":
            return self._passing_twin(value)
        known = ", ".join(map(str, self.widths))
        raise WidthError(f"width {value} is not one of {known}; add it with 'slimdet calibrate --width {value}'")

    def check_statistics(self, width: float) -> None:
        """Make sure that a width's statistics, if it has any, are its own.

        Raises:
            WidthError: `add` gave the width, and it was neither trained nor calibrated since.
        """
        value = parse_width(width)
        if value in self.borrowed:
            raise WidthError(
                f"width {value} has no statistics of its own yet: train it, or collect them with 'slimdet calibrate "
                f"--width {value}', in Python collect_statistics(model, [{value}], batches)"
            )

    def pass_plan(self, width: float, plan: Mapping[str, float]) -> None:
        """In training, let a width that the model does not have be widths by stage, until it is given others.

        Args:
            width, plan: as `add` takes them; norms are shared, and nothing is kept.

        Raises:
            WidthError: a width or plan that does not fit the detector.
        """
        value = parse_width(width)
        self._passing.pop(value, None)
        self._keep_passing(value, self._built(value, parse_plan(plan)))

    def fits(self, plan: Mapping[str, float]) -> bool:
        """Whether the detector can have a plan, as `add` takes it."""
        try:
            self._built(1.0, parse_plan(plan))
        except WidthError:
            return False
        return True

    def _built(self, width: float, plan: Mapping[str, float] | None = None) -> nn.Module:
        return build_twin(self._widest, width, self.scope, self._example, self.norm_sharing, plan)

    def _passing_twin(self, width: float) -> nn.Module:
        twin = self._passing.pop(width, None)
        return self._keep_passing(width, self._built(width) if twin is None else twin)

    def _keep_passing(self, width: float, twin: nn.Module) -> nn.Module:
        if len(self._passing) >= PASSING_TWINS:
            del self._passing[next(iter(self._passing))]
        self._passing[width] = twin  # the last used at the end
        return twin

    @torch.no_grad()
    def add(self, width: float, plan: Mapping[str, float] | None = None) -> nn.Module:
        """Add a width, or replace one, and return its twin.

        What belongs to each width starts as the leading channels of the nearest wider width's. Statistics of batch
        norms (frozen ones too) are not its own until it is trained or they are collected: till then it neither runs in
        eval mode nor can it be extracted or saved.

        Args:
            width: in (0, 1); with a plan, the name of the plan and the width of what it leaves out.
            plan: widths by stage, as {"backbone.body.layer4": 0.5}; where several fit a layer, the longest name counts.

        Raises:
            WidthError: 1.0, or a width or plan that does not fit the detector.
        """
        value = parse_width(width)
        if value == 1.0:
            raise WidthError("width 1.0 is the detector itself and cannot be added")
        stages = None if plan is None else parse_plan(plan)
        twin = self._built(value, stages)
        wider = self.twin(min(known for known in self.widths if known > value))
        for name, module in twin.named_modules():
            for key, own in own_tensors(module).items():
                given = cast(Tensor, getattr(wider.get_submodule(name), key))
                if given.dim() and len(given) >= len(own):  # a plan may be wider here: the widest's stay then
                    own.copy_(given[: len(own)])
        twin.train(self.training)
        self.twins[width_key(value)] = twin
        self.borrowed.discard(value)
        if any(getattr(module, "running_mean", None) is not None for module in twin.modules()):
            self.borrowed.add(value)
        self.plans.pop(value, None)
        if stages is not None:
            self.plans[value] = stages
        return twin

    def forward(self, images: Any, targets: Any = None, width: float | None = None) -> Any:
        """Run the detector at one width.

        Args:
            images: what the detector takes, for torchvision's a list of B float tensors [3, H, W] in 0..1.
            targets: what the detector takes; needed in training.
            width: one of `widths`; in eval mode 1.0 where none is given.

        Returns:
            What the detector returns: in training a dict of scalar losses, in eval a list of B dicts
            {boxes [N, 4] x1 y1 x2 y2 in pixels, labels [N], scores [N] in 0..1, ...}.

        Raises:
            WidthError: training without a width, a width that the model does not have, or, in eval mode, one without
                statistics of its own.
        """
        if width is None:
            if self.training:
                raise WidthError(f"training needs a width: model(images, targets, width=...), one of {self.widths}")
            width = 1.0
        detector = self.twin(width)
        if not self.training:
            self.check_statistics(width)
        result = detector(images) if targets is None else detector(images, targets)
        if self.training:
            self.borrowed.discard(parse_width(width))
        return result

    def extract(self, width: float) -> nn.Module:
        """Return a plain detector of this width: its own tensors, ordinary layers, no slimdet class, no sharing.

        Raises:
            WidthError: the model does not have this width, or its statistics are not its own.
        """
        twin = self.twin(width)
        self.check_statistics(width)
        # Full-size weights are not copied only to be cut: sliced layers hold on to them until they are unsliced.
        sliced = [module for module in twin.modules() if isinstance(module, Sliced)]
        held = {id(parameter): parameter for layer in sliced for parameter in layer.parameters(recurse=False)}
        plain = copy.deepcopy(twin, cast(dict[int, Any], held))
        for module in list(plain.modules()):
            if isinstance(module, Sliced):
                module._unslice()
        return plain

    def tie(self) -> None:
        """Make every width hold the widest detector's Parameter objects again."""
        self._passing.clear()
        for twin in self.twins.values():
            for name, module in twin.named_modules():
                if isinstance(module, Sliced):
                    module._tie(self._widest.get_submodule(name))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_passing": {}}  # copies and files do without them

    def train(self, mode: bool = True) -> "Slimmable":
        self._widest.training = mode  # not part of the module tree, see __init__
        super().train(mode)
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Slimmable":
        for child in self._widest.children():
            child._apply(fn)
        for twin in self.twins.values():
            for module in twin.modules():
                if isinstance(module, Sliced):
                    module._apply_own(fn)
                else:
                    module._apply(fn, recurse=False)
        self.tie()
        return self


def _loaded(model: Slimmable, incompatible_keys: Any) -> None:
    model.tie()
    lacking = set(".".join(incompatible_keys.missing_keys).split("."))
    model.borrowed = {width for width in model.borrowed if width_key(width) in lacking}


def slim(
    detector: nn.Module,
    widths: Iterable[float] = (0.25, 0.5, 0.75, 1.0),
    scope: str | Scope = "detector",
    example: tuple[Any, ...] | None = None,
    norm_sharing: str = "own",
    plans: Mapping[float, Mapping[str, float]] | None = None,
) -> Slimmable:
    """Make a detector slimmable. The detector handed over becomes width 1.0 and is not changed.

    Args:
        detector: any torchvision detector, or another module made of convolutions, linears and norms.
        widths: fractions of the channels, each in (0, 1], 1.0 among them. A layer of C channels gets
            w * C of them, rounded down (`slimdet.widths.channels_at`).
        scope: "detector" narrows everything but the outputs; "backbone" what the original system narrows; or a Scope.
        example: positional arguments of a forward pass that reaches every layer, for the dry run that finds how many
            channels a layer receives; the default is a list of one image [3, 64, 64].
        norm_sharing: "own": each width has its own norms, and in scope "detector" its own biases where no norm follows;
            "shared": their weights and biases are shared slices, a width owns the norms' statistics alone. In training
            such a model runs at any width, and widths can be added afterwards.
        plans: for some of `widths`, widths by stage, as `Slimmable.add` takes them.

    Raises:
        WidthError: a malformed or repeated width, 1.0 missing, or a width that does not fit the detector.
        UnknownLayerError: a layer or bare parameter that cannot be narrowed, or a part of the detector that has the
            name of one of Slimmable's own attributes.
        ConfigError: no such scope, or `norm_sharing` is neither "own" nor "shared".
    """
    scope = get_scope(scope)
    check_choice("norm_sharing", norm_sharing, NORM_SHARING)
    values = parse_widths(widths)
    if any(isinstance(module, Sliced | Slimmable) for module in detector.modules()):
        raise UnknownLayerError(f"{type(detector).__name__} is slimmable already; hand over an ordinary detector")
    check_layers(detector)
    check_scope(detector, scope)
    model = Slimmable(detector, scope, norm_sharing, example)
    model.plans = {parse_width(value): parse_plan(plan) for value, plan in (plans or {}).items()}
    for value in values[:-1]:
        twin = build_twin(detector, value, scope, example, norm_sharing, model.plans.get(value))
        model.twins[width_key(value)] = twin
    return model
