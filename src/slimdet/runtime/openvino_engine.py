"""OpenVINO: Intel's engine, from the extra `openvino`."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from slimdet.bundle.manifest import Manifest
from slimdet.errors import BundleError, ConfigError
from slimdet.runtime.engine import EngineSettings, Found, exported_threshold


class OpenvinoEngine:
    """Runs a bundle's OpenVINO files (.xml), or its .onnx files where it has no others.

    Computes in 32 bits: by itself OpenVINO takes 16 where the processor has them, and scores change.

    Devices are "auto" (the CPU) and OpenVINO's own: "cpu", "gpu", "npu", ...

    Raises:
        ConfigError: OpenVINO has no such device here.
    """

    name = "openvino"

    def __init__(self, bundle: Manifest, options: EngineSettings) -> None:
        self._bundle, device = bundle, options.device
        self.least_conf = exported_threshold(bundle)
        self._kind = "openvino" if bundle.engines("openvino") else "onnx"
        self._core = openvino.Core()
        self.device = "cpu" if device == "auto" else device
        available = [name.lower() for name in self._core.available_devices]
        if self.device not in available:
            raise ConfigError(f"--device {device} is not one of OpenVINO's here; available: {', '.join(available)}")
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if options.threads:
            self._settings["INFERENCE_NUM_THREADS"] = options.threads

    def files(self, width: float) -> list[Path]:
        return self._bundle.engine(self._kind, width)

    def load(self, width: float) -> "OpenvinoSession":
        file = self.files(width)[0]
        try:
            model = self._core.read_model(file)
            return OpenvinoSession(self._core.compile_model(model, self.device.upper(), self._settings), model)
        except Exception as error:  # the library's exceptions have no base of their own
            reason = (str(error).strip().splitlines() or [""])[-1].strip()
            raise BundleError(f"{file} cannot be run by openvino {openvino.__version__}: {reason}") from error


class OpenvinoSession:
    """One width. An infer request belongs to one thread: each thread gets its own."""

    takes_resized = True

    def __init__(self, compiled: Any, model: Any) -> None:
        self._compiled, self._own = compiled, threading.local()
        given = {name for output in compiled.outputs for name in output.names}  # a tensor may have several
        self._outputs = [name for name in Found._fields if name in given]
        size = json.loads(model.get_rt_info(["framework", "input"]).astype(str))
        self.sides = int(size["min_size"]), int(size["max_size"])

    def __call__(self, images: NDArray[np.uint8], conf: float = 1.0) -> Found:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        request = self._own.request
        request.infer({"images": images}, share_inputs=True)
        # Copied: the next run writes into the request's own arrays.
        return Found(**{name: request.get_tensor(name).data.copy() for name in self._outputs})
