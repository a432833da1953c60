"""Post-training quantization: convolutions and linear layers in 8 bits, all else in 32.

Boxes have no room in 8 bits: of 186 pixels a step would be 0.7. What is not a layer (box arithmetic, non-maximum
suppression, resizing, pooling of regions) therefore stays as it is. Weights have a scale for each output channel; an
activation has one, from the least to the largest value that it takes in the images it is calibrated on.
"""

import io
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from slimdet.devices import cpu_saturates
from slimdet.errors import ConfigError
from slimdet.runtime.exported import OPTIONS

Images = Sequence[NDArray[np.uint8]]  # each [1, H, W, 3], RGB, of a size of its own


def layers(model: onnx.ModelProto) -> list[str]:
    """The names of a graph's convolutions and linear layers: what multiplies by weights."""
    return [node.name for node in _layers(model)]


def quantized_onnx(
    model: onnx.ModelProto,
    images: Images,
    float_layers: Collection[str] = (),
    method: CalibrationMethod = CalibrationMethod.MinMax,
) -> onnx.ModelProto:
    """An ONNX model with its layers in 8 bits, as pairs of QuantizeLinear and DequantizeLinear around them.

    Args:
        model: in 32 bits, its norms merged into the weights (`slimdet.exporting.onnx.folded`).
        images: to calibrate on.
        float_layers: names of layers that stay in 32 bits.
        method: how the range of an activation follows from its values.
    """
    chosen = [name for name in layers(model) if name not in float_layers]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        float32, file = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, float32)  # a model that is handed over as it is loses its weights to a file
        quantize_static(
            float32,
            file,
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=cpu_saturates(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            # Images have sizes of their own, which histograms take one at a time only.
            extra_options={} if method is CalibrationMethod.MinMax else {"CalibStridedMinMax": 1},
        )
        smaller = onnx.load(file)
    del smaller.metadata_props[:]
    smaller.metadata_props.extend(model.metadata_props)
    onnx.checker.check_model(smaller, full_check=True)
    return smaller


def quantized_openvino(model: onnx.ModelProto, images: Images, float_layers: Collection[str] = ()) -> Any:
    """The model as `openvino.Model` with its layers in 8 bits; the arguments are those of `quantized_onnx`.

    By NNCF (Intel, Apache-2.0), with biases corrected for what rounding moves on average.

    Raises:
        ConfigError: NNCF is not installed.
    """
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise ConfigError("8 bits for OpenVINO need nncf; get it with: pip install 'slimdet[int8]'") from error

    from slimdet.exporting.openvino import converted

    float32 = converted(model)
    # OpenVINO's reader makes two operations of a layer with a bias.
    chosen = {f"{name}{end}" for name in layers(model) if name not in float_layers for end in ("", "/WithoutBiases")}
    others = [op.get_friendly_name() for op in float32.get_ops() if op.get_friendly_name() not in chosen]
    scope = nncf.IgnoredScope(names=others, validate=False)
    own = {one.name: numpy_helper.to_array(one).copy() for one in model.graph.initializer if one.name in OPTIONS}
    inputs = [{"images": image} | own for image in images]
    with _quiet():
        return nncf.quantize(float32, nncf.Dataset(inputs), subset_size=len(images), ignored_scope=scope)


def worst_first(model: onnx.ModelProto, images: Images) -> list[str]:
    """The names of the layers, that which 8 bits disturb most first.

    The disturbance is the energy of the rounding errors over that of the values, of a layer's input (over `images`) and
    of its weights together: each by itself, so that it does not matter what comes before the layer.
    """
    nodes, weights = _layers(model), {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = sorted({node.input[0] for node in nodes})
    low, high = (dict.fromkeys(inputs, 0.0) for _ in range(2))
    for values in _activations(model, inputs, images):
        low = {name: min(low[name], float(value.min(initial=0))) for name, value in values.items()}
        high = {name: max(high[name], float(value.max(initial=0))) for name, value in values.items()}
    noise, signal = (dict.fromkeys(inputs, 0.0) for _ in range(2))
    for values in _activations(model, inputs, images):
        for name, value in values.items():
            noise[name] += _noise(value, (high[name] - low[name]) / 255)
            signal[name] += float(np.square(value, dtype=np.float64).sum())
    disturbance: dict[str, float] = {}  # by weight
    for node in nodes:
        weight = numpy_helper.to_array(weights[node.input[1]])
        axis = weight.ndim - 1 if node.op_type == "MatMul" else 0  # of the output channels
        steps = np.abs(weight).max(axis=tuple(other for other in range(weight.ndim) if other != axis), keepdims=True)
        of_weight = _noise(weight, steps / 127) / max(float(np.square(weight, dtype=np.float64).sum()), 1e-30)
        own = noise[node.input[0]] / max(signal[node.input[0]], 1e-30) + of_weight
        disturbance[node.input[1]] = max(own, disturbance.get(node.input[1], 0.0))
    # Layers that share their weights (a head on all levels) go together: weights are in 8 bits for all of them or none.
    return [node.name for node in sorted(nodes, key=lambda node: (-disturbance[node.input[1]], node.input[1]))]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' remarks and bars; their errors are exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)  # errors
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
        onnxruntime.set_default_logger_severity(2)  # warnings, as at first


def _layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes = (node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul"))
    return [node for node in nodes if node.input[1] in weights]


def _noise(values: NDArray[Any], step: Any) -> float:
    """The energy of what is lost where values are rounded to multiples of `step`."""
    step = np.maximum(step, 1e-30)
    return float(np.square(values - np.round(values / step) * step, dtype=np.float64).sum())


def _activations(
    model: onnx.ModelProto, names: Iterable[str], images: Images
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The values of tensors inside the graph, for one image after the other."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(opened.SerializeToString(), options, ["CPUExecutionProvider"])
    for image in images:
        values: Any = session.run(list(names), {"images": image})
        yield dict(zip(names, values, strict=True))


class _Reader(CalibrationDataReader):
    """Images as ONNX Runtime's calibration reads them."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self._images)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._coming = iter(self._images[start_index:end_index])

    def get_next(self) -> Any:
        image = next(self._coming, None)
        return None if image is None else {"images": image}
