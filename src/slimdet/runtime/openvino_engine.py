"""OpenVINO: Intel's engine, from the extra `openvino`."""

import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

from slimdet.bundle.ladder import Precision
from slimdet.bundle.manifest import INT8, Manifest
from slimdet.errors import BundleError, ConfigError
from slimdet.runtime.engine import EngineSettings, Found, check_precision, exported_threshold
from slimdet.runtime.exported import OPTIONS, EngineOutputs, FileInputs

SHAPES = 256  # layers kept as prepared for a shape, the last ones; with its own 5000 OpenVINO grows and grows
_HALVES: dict[Precision, str] = {"bf16": "bf16", "fp16": "f16"}  # and OpenVINO's names


@cache
def core() -> openvino.Core:
    """The one `openvino.Core` of this process, which stays to its end.

    OpenVINO's CPU plugin gives the thread that makes it a stack for signals, and takes the memory away when it goes. If
    it goes in another thread, or before one that was made earlier, the thread is left without, and the next signal (of
    Ctrl-C, of a child that ended) is the end of the process: SIGSEGV, with OpenVINO 2026.4 on Linux.
    """
    return openvino.Core()


class OpenvinoEngine:
    """Runs a bundle's OpenVINO files (.xml), or its .onnx files where it has no others.

    Computes in 32 bits unless another precision is asked for: by itself OpenVINO takes 16 where the processor has them,
    and scores change. Half the bits, "bf16" and "fp16", are had from the same files where the device has them.

    Devices are "auto" (the CPU) and OpenVINO's own: "cpu", "gpu", "npu", ...

    Raises:
        ConfigError: OpenVINO has no such device here.
    """

    name = "openvino"

    def __init__(self, bundle: Manifest, options: EngineSettings) -> None:
        self._bundle, self._options, device = bundle, options, options.device
        self.least_conf = self.own_conf = exported_threshold(bundle)
        self._kind = "openvino" if bundle.engines("openvino") else "onnx"
        self._core = core()
        self.device = "cpu" if device == "auto" else device
        available = [name.lower() for name in self._core.available_devices]
        if self.device not in available:
            raise ConfigError(f"--device {device} is not one of OpenVINO's here; available: {', '.join(available)}")

    def precision(self, width: float) -> Precision:
        # What was measured was measured on a CPU.
        return self._options.precision or (self._bundle.best(self._kind, width) if self.device == "cpu" else "fp32")

    def files(self, width: float, precision: Precision | None = None) -> list[Path]:
        return self._bundle.engine(self._file_kind(precision or self.precision(width)), width)

    def _file_kind(self, precision: Precision) -> str:
        return self._kind + INT8 if precision == "int8" else self._kind

    def _precisions(self) -> list[Precision]:
        has = self._core.get_property(self.device.upper(), "OPTIMIZATION_CAPABILITIES")
        # OpenVINO 2026.4 took over a minute for an image in fp16 on a CPU that lists it.
        halves: list[Precision] = [
            name for name in _HALVES if name.upper() in has and (name, self.device) != ("fp16", "cpu")
        ]
        return ["fp32", "int8", *halves]

    def load(self, width: float, precision: Precision | None = None) -> "OpenvinoSession":
        precision = precision or self.precision(width)
        check_precision(precision, self._precisions(), f"openvino on this {self.device}", "a device that has it")
        with self._bundle.opening(self._file_kind(precision), width) as files:
            return self._open(files[0], precision, self._options.threads_of(width))

    def _open(self, file: Path, precision: Precision, threads: int | None) -> "OpenvinoSession":
        hints: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HALVES.get(precision, "f32"),
        }
        if self.device == "cpu":
            hints["CPU_RUNTIME_CACHE_CAPACITY"] = SHAPES
        if threads:
            hints["INFERENCE_NUM_THREADS"] = threads
        try:
            model = _opened(self._core.read_model(file))
            compiled = self._core.compile_model(model, self.device.upper(), hints)
            said = model.get_rt_info(["framework", "input"]).astype(str)
            given = [name for one in model.inputs for name in one.names]
            named = {name for output in compiled.outputs for name in output.names}  # a tensor may have several
            outputs = EngineOutputs(file, [name for name in Found._fields if name in named], len(self._bundle.classes))
            return OpenvinoSession(compiled, FileInputs(file, said, given, self._options), outputs, precision)
        except (BundleError, ConfigError):
            raise
        except Exception as error:  # the library's exceptions have no base of their own
            reason = (str(error).strip().splitlines() or [""])[-1].strip()
            raise BundleError(f"{file} cannot be run by openvino {openvino.__version__}: {reason}") from error


def _opened(model: Any) -> Any:
    """A model of which no input may be left out: reading ONNX, OpenVINO takes their defaults for constants."""
    defaults = [node for node in model.get_ops() if node.get_type_name() == "Constant" and _option(node)]
    for default in defaults:
        name = _option(default)
        given = opset13.parameter([], np.int64, name=name)
        for user in default.output(0).get_target_inputs():
            user.replace_source_output(given.output(0))
        default.output(0).set_names(set())
        given.output(0).set_names({name})
        model.add_parameters([given])
    model.validate_nodes_and_infer_types()
    return model


def _option(node: Any) -> str:
    return next((name for name in OPTIONS if name in node.output(0).names), "")


class OpenvinoSession:
    """One width. An infer request belongs to one thread: each thread gets its own."""

    takes_resized = True

    def __init__(self, compiled: Any, inputs: FileInputs, outputs: EngineOutputs, precision: Precision) -> None:
        self._compiled, self._own, self.precision = compiled, threading.local(), precision
        self._outputs = outputs
        self._inputs, self.sides, self.proposals = inputs, inputs.sides, inputs.proposals

    def __call__(
        self, images: NDArray[np.uint8], conf: float = 1.0, imgsz: int | None = None, proposals: int | None = None
    ) -> Found:
        feeds = self._inputs(images, imgsz, proposals)
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        request = self._own.request
        with self._outputs.failing():
            request.infer(feeds, share_inputs=True)
            # Copied: the next run writes into the request's own arrays.
            values = [request.get_tensor(name).data.copy() for name in self._outputs.names]
        return self._outputs(values, images)
