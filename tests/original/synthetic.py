"""Weights for parity that no file has to carry: an entry's value follows from its name and shape.

The original's reference numbers were made with these weights. Each entry draws from a generator of its own (MT19937,
seeded with the sha256 of its name). Spreads are chosen so that activations stay of order one at every width, and that
thresholds, top-k and suppression have something to decide. Nothing comes from a trained model.
"""

import hashlib
import re
from collections.abc import Iterable

import numpy as np

SEED = 0

# By name, the first match: the weights' deviation in units of sqrt(2 / inputs); the biases' mean and deviation.
SPREADS = (
    (r"backbone\.", 1.0, 0.0, 0.0),
    (r"neck\.lateral_convs\.3\.", 1.1, 0.0, 0.05),
    (r"neck\.lateral_convs\.2\.", 0.7, 0.0, 0.05),
    (r"neck\.lateral_convs\.", 0.5, 0.0, 0.05),
    (r"neck\.fpn_convs\.", 0.8, 0.0, 0.05),
    (r"rpn_head\.rpn_cls\.", 0.8, -1.0, 0.3),
    (r"rpn_head\.rpn_reg\.", 0.25, 0.0, 0.02),
    (r"bbox_head\.fc_cls\.", 1.5, 0.0, 0.3),
    (r"bbox_head\.fc_reg\.", 0.6, 0.0, 0.1),
    (r"mask_head\.conv_logits\.", 1.5, 0.0, 0.3),
    (r"", 1.0, 0.0, 0.05),
)
NORM = re.compile(r"(?P<layer>.*)\.bn\.(?P<index>\d)\.(?P<field>weight|bias|running_mean|running_var)")


def fill(keys: Iterable[tuple[str, list[int]]]) -> dict[str, np.ndarray]:
    """Values of a checkpoint's entries, given as (name, shape)."""
    return {name: value(name, tuple(shape)) for name, shape in keys}


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry: float32, or int64 zeros for `num_batches_tracked`."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    digest = hashlib.sha256(f"{SEED}:{name}".encode()).digest()
    draw = np.random.RandomState(np.frombuffer(digest, "<u4"))
    norm = NORM.fullmatch(name)
    if norm:
        values = _norm(draw, shape, norm["layer"], int(norm["index"]), norm["field"])
    else:
        gain, mean, deviation = next(row[1:] for row in SPREADS if re.match(row[0], name))
        values = _bias(draw, shape, name, mean, deviation) if len(shape) == 1 else _weight(draw, shape, name, gain)
    return np.ascontiguousarray(values, np.float32)


def _norm(draw: np.random.RandomState, shape: tuple[int, ...], layer: str, index: int, field: str) -> np.ndarray:
    """Variances are in proportion to the width that the norm belongs to, as a layer's sums over fewer inputs are."""
    width = 1.0 if layer == "backbone.bn1" else (index + 1) / 4
    if field == "weight":
        gain = 0.45 if layer.endswith(".bn3") else 0.7 if re.search(r"\.downsample\.\d$", layer) else 1.0
        return gain * draw.uniform(0.5, 1.5, shape)
    if field == "running_var":
        return width * draw.uniform(0.5, 1.5, shape)
    return 0.1 * (np.sqrt(width) if field == "running_mean" else 1.0) * draw.standard_normal(shape)


def _bias(draw: np.random.RandomState, shape: tuple[int, ...], name: str, mean: float, deviation: float) -> np.ndarray:
    values = mean + deviation * draw.standard_normal(shape)
    if name == "bbox_head.fc_cls.bias":
        values[0] += 7.5  # background: few boxes pass the threshold
    if name == "rpn_head.rpn_reg.bias":
        values.reshape(-1, 4)[:, 2:] += 0.5  # larger boxes: more levels of the pyramid are used
    return values


def _weight(draw: np.random.RandomState, shape: tuple[int, ...], name: str, gain: float) -> np.ndarray:
    """A filter's mean over each quarter of its inputs is zero, so that what comes after a ReLU keeps its contrast."""
    values = draw.standard_normal(shape)
    transposed = name.startswith("mask_head.upsample.")  # [in, out, kh, kw] with the stride as the kernel's size
    filters = values.swapaxes(0, 1) if transposed else values  # [out, in, ...]
    inputs = filters.shape[1]
    if inputs % 4 == 0:
        for quarter in np.split(filters, 4, axis=1):  # views
            quarter -= quarter.mean(axis=tuple(range(1, quarter.ndim)), keepdims=True)
    return values * (gain * np.sqrt(2 / (inputs if transposed else filters[0].size)))
