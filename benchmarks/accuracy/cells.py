"""What the accuracy study runs, in order: the decisive comparisons first.

A cell is one training: a method, the widths it trains, scope, data, learning rate, seed. It leaves one file
`rows/<name>.json`; a cell whose row exists is not run again.
"""

from dataclasses import dataclass, field
from typing import Any

QUARTERS = (0.25, 0.5, 0.75, 1.0)

# Shared by all methods: the same images in the same order, the same number of steps, the same start.
COMMON: dict[str, Any] = {
    "backbone": "resnet50_thin",
    "neck": "light",
    "head_norm": "batch",
    "imgsz": 128,
    "epochs": 2.0,
    "batch": 16,
    "schedule": "cosine",
    "warmup": 500,
    "ema": 0.99,
    "bf16": True,
}

# What a data set asks for besides.
SETS: dict[str, dict[str, Any]] = {
    "animalpose": {},
    "pennfudan": {"model": "mask_rcnn", "epochs": 40.0, "imgsz": 160},  # 110 images: about 280 steps
}

# The best of the slimmable methods on the tune images, by the mean over the widths: teaching, the widest alone for the
# first 30 % of the steps, gradients divided by the root of their number.
RECIPE: dict[str, Any] = {"distill": 2.0, "widest_only": 0.3, "gradient_reduction": "root"}

# What a method adds to the paper's plain sum.
METHODS: dict[str, dict[str, Any]] = {
    "individual": {},
    "individual-taught": {"distill": 2.0},  # by the individual of width 1.0 of the same seed
    "plain": {},
    "distill": {"distill": 2.0},
    "mean": {"distill": 2.0, "gradient_reduction": "mean"},
    "root": {"distill": 2.0, "gradient_reduction": "root"},
    "late": {"distill": 2.0, "widest_only": 0.5},
    "late-root": RECIPE,
    "late-mean": RECIPE | {"gradient_reduction": "mean"},
    "balance": RECIPE | {"loss_exponent": 0.5},
    "range": RECIPE | {"width_sampling": "range"},
    "sandwich": RECIPE | {"width_sampling": "sandwich"},
    "recalibrated": RECIPE | {"recalibrate": 512},
    "features": RECIPE | {"distill_parts": ("features",)},
    "classes": RECIPE | {"distill_parts": ("classes",)},
    "with-rpn": RECIPE | {"distill_parts": ("features", "classes", "rpn")},
    "with-masks": {"distill": 2.0, "distill_parts": ("features", "classes", "masks")},
    "biases": RECIPE | {"head_norm": "none"},  # of each width, in place of norms in pyramid and heads
}


@dataclass(frozen=True)
class Cell:
    """One training of the study."""

    method: str
    seed: int = 0
    width: float | None = None  # of an individual; None is a slimmable detector at all of `QUARTERS`
    lr: float = field(kw_only=True)
    scope: str = "detector"
    data: str = "animalpose"
    sort: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """What `slimdet.training.settings.TrainSettings` is given."""
        return COMMON | SETS[self.data] | METHODS[self.method] | {"scope": self.scope, "lr": self.lr, "seed": self.seed}

    @property
    def name(self) -> str:
        parts = [self.data, self.scope, self.method]
        if self.width is not None:
            parts.append(f"{self.width}")
        if not self.sort:
            parts.append("unsorted")
        return "-".join([*parts, f"lr{self.lr:g}", f"seed{self.seed}"])


# The best of each grid on the tune images, seed 0.
INDIVIDUAL = {0.25: 0.03, 0.5: 0.015, 0.75: 0.015, 1.0: 0.015}
SLIMMABLE = 0.015  # of the recipe and its variants
PLAIN = 0.0075  # of the sum, whose gradients add up


def individuals(seed: int, *widths: float, lr: float | None = None, **changes: Any) -> list[Cell]:
    """One training for each width, at its best learning rate where none is given."""
    return [Cell("individual", seed, width, lr=lr or INDIVIDUAL[width], **changes) for width in widths]


def backbone_scope(seed: int) -> list[Cell]:
    """The backbone alone narrows; at 1.0 its individual is the whole detector's."""
    return [*individuals(seed, 0.25, scope="backbone"), Cell("late-root", seed, lr=SLIMMABLE, scope="backbone")]


def mask_rcnn(seed: int) -> list[Cell]:
    return [*individuals(seed, 0.25, 1.0, data="pennfudan"), Cell("late-root", seed, lr=SLIMMABLE, data="pennfudan")]


CELLS: tuple[Cell, ...] = (
    # Learning rates: chosen on the `tune` images, which nothing trains on.
    *(cell for lr in (0.06, 0.03, 0.015) for cell in individuals(0, 0.25, 1.0, lr=lr)),
    *(cell for lr in (0.03, 0.015) for cell in individuals(0, 0.5, 0.75, lr=lr)),
    *individuals(0, 0.5, 0.75, 1.0, lr=0.0075),
    *(Cell("distill", lr=lr) for lr in (0.03, 0.0075)),
    *(Cell(method, lr=0.015) for method in ("mean", "root", "late", "late-root")),
    # Slimmable against individual, scope detector, three seeds.
    *(cell for seed in (1, 2) for cell in (Cell("late-root", seed, lr=SLIMMABLE), *individuals(seed, *QUARTERS))),
    # What teaching is worth, without slimming.
    *(Cell("individual-taught", seed, 0.25, lr=INDIVIDUAL[0.25]) for seed in range(3)),
    *(Cell("individual-taught", width=width, lr=INDIVIDUAL[width]) for width in (0.5, 0.75)),
    # The paper's plain sum.
    Cell("plain", lr=PLAIN),
    *(cell for group in (backbone_scope, mask_rcnn) for cell in group(0)),
    # Without the late start, after what the recipe lost there at 0.25; better on the tune images.
    Cell("distill", lr=SLIMMABLE, data="pennfudan"),
    # What the other ingredients are worth.
    Cell("balance", lr=SLIMMABLE),
    Cell("range", lr=SLIMMABLE),
    Cell("late-root", lr=SLIMMABLE, sort=False),
    *(Cell("distill", lr=lr) for lr in (0.015, 0.00375)),
    *(cell for group in (backbone_scope, mask_rcnn) for seed in (1, 2) for cell in group(seed)),
    # The best on the tune images of seed 0, on the other seeds.
    *(Cell("distill", seed, lr=SLIMMABLE, data="pennfudan") for seed in (1, 2)),
    # Learning rates of scope backbone and of Mask R-CNN; the ones above are those of the detector scope.
    Cell("late-root", lr=0.0075, scope="backbone"),
    Cell("distill", lr=0.03, data="pennfudan"),
    *individuals(0, 0.25, lr=0.015, scope="backbone"),
    *individuals(0, 0.25, lr=0.015, data="pennfudan"),
    *individuals(0, 1.0, lr=0.03, data="pennfudan"),
    # As above, the rest.
    *(Cell("balance", seed, lr=SLIMMABLE) for seed in (1, 2)),
    # The recipe's learning rate, scope detector.
    Cell("late-root", lr=0.03),
    # What these grids chose, on the other seeds; the individuals between.
    *(cell for seed in (1, 2) for cell in individuals(seed, 0.25, lr=0.015, scope="backbone")),
    *(Cell("distill", seed, lr=0.03, data="pennfudan") for seed in (1, 2)),
    *individuals(0, 0.5, 0.75, scope="backbone"),
    *individuals(0, 0.5, 0.75, data="pennfudan"),
    Cell("late-root", lr=0.0075),
    # Scope backbone, where every width uses all of the heads: the mean of their gradients.
    Cell("late-mean", lr=SLIMMABLE, scope="backbone"),
    # Taught individuals between, on the other seeds.
    *(Cell("individual-taught", seed, width, lr=INDIVIDUAL[width]) for seed in (1, 2) for width in (0.5, 0.75)),
    # What each part of teaching and the remaining ingredients are worth.
    *(
        Cell(method, lr=SLIMMABLE)
        for method in ("sandwich", "recalibrated", "features", "classes", "with-rpn", "biases")
    ),
    # Mask R-CNN: the recipe's other learning rate, and the mask head taught, too.
    Cell("late-root", lr=0.03, data="pennfudan"),
    Cell("with-masks", lr=0.03, data="pennfudan"),
    # The paper's sum in the paper's scope.
    Cell("plain", lr=PLAIN, scope="backbone"),
)
