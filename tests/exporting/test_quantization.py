"""8 bits in the graph: in layers, and nowhere else."""

import numpy as np
import onnx
import pytest

from exporting.parity import photographs
from scenes_detector import tiny_model
from slimdet.exporting.onnx import folded, to_onnx
from slimdet.exporting.quantization import layers, quantized_onnx, quantized_openvino, worst_first

IMAGES = [photographs(size, 1, seed=0).numpy() for size in ((75, 90), (64, 64))]


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return folded(to_onnx(tiny_model().extract(0.5), {"width": "0.5"}))


def in_8_bits(model: onnx.ModelProto) -> set[str]:
    """The layers whose input and weights come from DequantizeLinear."""
    maker = {name: node.op_type for node in model.graph.node for name in node.output}
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return {node.name for node in nodes if all(maker.get(name) == "DequantizeLinear" for name in node.input[:2])}


def test_layers_are_what_multiplies_by_weights(graph: onnx.ModelProto) -> None:
    names = layers(graph)
    assert len(names) == len(set(names)) > 20
    kinds = {node.name: node.op_type for node in graph.graph.node}
    assert {kinds[name] for name in names} == {"Conv", "Gemm"}
    product = onnx.helper.make_node("MatMul", ["boxes", "boxes"], ["area"], "no layer")
    graph.graph.node.append(product)
    assert layers(graph) == names
    graph.graph.node.remove(product)


def test_onnx_has_the_layers_in_8_bits_but_those_that_stay(graph: onnx.ModelProto) -> None:
    stays = layers(graph)[:2]
    smaller = quantized_onnx(graph, IMAGES, stays)
    assert in_8_bits(smaller) == set(layers(graph)) - set(stays)
    assert smaller.metadata_props == graph.metadata_props
    # What lies between layers and is touched is the pair of nodes that a layer's input or output goes through.
    ends = {name for node in graph.graph.node if node.name in layers(graph) for name in (node.input[0], *node.output)}
    rounded = {node.input[0] for node in smaller.graph.node if node.op_type == "QuantizeLinear"}
    assert rounded <= ends | {name for node in graph.graph.node if node.op_type == "Relu" for name in node.output}
    assert smaller.ByteSize() < 0.5 * graph.ByteSize()


def test_openvino_has_the_layers_in_8_bits_but_those_that_stay(graph: onnx.ModelProto) -> None:
    stays = layers(graph)[:2]
    model = quantized_openvino(graph, IMAGES, stays)
    weights = [op for op in model.get_ops() if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")]
    rounded = {
        op.get_friendly_name().removesuffix("/WithoutBiases")
        for op in weights
        if op.input(0).get_source_output().get_node().get_type_name() == "FakeQuantize"
    }
    assert rounded == set(layers(graph)) - set(stays)
    followers = {
        target.get_node().get_type_name()
        for op in model.get_ops()
        if op.get_type_name() == "FakeQuantize"
        for target in op.output(0).get_target_inputs()
    }
    assert followers <= {"Convolution", "GroupConvolution", "MatMul"}
    assert model.get_rt_info(["framework", "width"]).astype(str) == "0.5"


def test_the_layer_with_the_roughest_weights_is_the_first_to_go_back(graph: onnx.ModelProto) -> None:
    ranked = worst_first(graph, IMAGES)
    assert sorted(ranked) == sorted(layers(graph))
    node = next(node for node in graph.graph.node if node.name == ranked[-1])
    weight = next(tensor for tensor in graph.graph.initializer if tensor.name == node.input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    kept = onnx.TensorProto()
    kept.CopyFrom(weight)
    values.reshape(len(values), -1)[:, 0] = 1e4  # one value that leaves no steps to the others of its channel
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    others = worst_first(graph, IMAGES)
    weight.CopyFrom(kept)
    assert others.index(ranked[-1]) < ranked.index(ranked[-1])
    assert np.isfinite(values).all()
