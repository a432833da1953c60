"""Scopes: which layers narrow. A scope is data, written in the names of torchvision's detectors."""

import re
from dataclasses import dataclass

from slimdet.errors import ConfigError

MOST_STEPS = 20_000
_NAME = 40  # characters of a layer's name


@dataclass(frozen=True)
class Scope:
    """Which layers narrow their *output* channels; input channels follow from what a layer receives.

    Args:
        name: how the scope is called in files and on the command line.
        narrow: regular expressions of the dotted names of layers that narrow.
        keep: exceptions to `narrow`: layers whose outputs mean something (classes, boxes, masks).
        own_bias: each width gets its own bias where a narrowed layer has no norm behind it.

    Raises:
        ConfigError: a pattern that is none, or patterns that may take long: bundles bring theirs along.
    """

    name: str
    narrow: tuple[str, ...]
    keep: tuple[str, ...] = ()
    own_bias: bool = False

    def __post_init__(self) -> None:
        steps = sum(map(_most_steps, (*self.narrow, *self.keep)))
        if steps > MOST_STEPS:
            raise ConfigError(
                f"the patterns of scope {self.name!r:.80} may take long to match; use fewer of * + ? and |"
            )

    def narrows(self, layer: str) -> bool:
        """Whether the layer of this dotted name gives fewer channels at a narrower width."""
        return _matches(self.narrow, layer) and not _matches(self.keep, layer)

    def keeps(self, layer: str) -> bool:
        """Whether the layer of this dotted name is one of the stated exceptions."""
        return _matches(self.keep, layer)


def _matches(patterns: tuple[str, ...], layer: str) -> bool:
    return any(re.fullmatch(pattern, layer) for pattern in patterns)


def _most_steps(pattern: str) -> int:
    """A bound of the steps that matching a layer's name takes: a pattern may be made to take for ever.

    Raises:
        ConfigError: it is no regular expression, or repeats a group, which has no such bound.
    """
    try:
        re.compile(pattern)
        bare = re.sub(r"\\.|\[[^\]]*\]", "x", pattern)
        if len(pattern) > 500 or re.search(r"\)[*+{]|\(\?[^:=!]", bare):
            raise ValueError("it repeats a group, or sets flags")
    except (TypeError, ValueError, OverflowError, RecursionError, re.error) as error:
        raise ConfigError(f"{pattern!r:.80} is no pattern of layers: {error}") from None
    return _NAME ** len(re.findall(r"[*+{]", bare)) * 2 ** len(re.findall(r"(?<!\()[?|]", bare))


# The original system: the backbone narrows, the neck and the heads stay wide.
BACKBONE = Scope("backbone", narrow=(r"backbone\..*",), keep=(r"backbone\.fpn\..*",))

# Everything narrows but what carries classes, boxes, centre-ness, masks and keypoints.
DETECTOR = Scope(
    "detector",
    narrow=(r".*",),
    keep=(
        r"rpn\.head\.(cls_logits|bbox_pred)",
        r"roi_heads\.(box|keypoint)_predictor\..*",
        r"roi_heads\.mask_predictor\.mask_fcn_logits",
        r"head\.(classification|regression)_head\.(cls_logits|bbox_reg|bbox_ctrness)",  # RetinaNet, FCOS
        r"head\.(classification|regression)_head\.module_list\.\d+(\.1)?",  # SSD, and SSDLite's last 1x1
    ),
    own_bias=True,
)

SCOPES = {scope.name: scope for scope in (BACKBONE, DETECTOR)}


def get_scope(scope: str | Scope) -> Scope:
    """Return the scope of that name, or the scope itself.

    Raises:
        ConfigError: no scope has that name.
    """
    if isinstance(scope, Scope):
        return scope
    if scope not in SCOPES:
        raise ConfigError(f"scope {scope!r} is not one of {', '.join(map(repr, SCOPES))}")
    return SCOPES[scope]
