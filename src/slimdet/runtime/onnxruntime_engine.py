"""ONNX Runtime: the default engine."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from slimdet.bundle.ladder import Precision
from slimdet.bundle.manifest import INT8, Manifest
from slimdet.errors import BundleError, ConfigError
from slimdet.messages import first_line
from slimdet.runtime.engine import EngineSettings, Found, check_precision, exported_threshold
from slimdet.runtime.exported import EngineOutputs, FileInputs

# Devices as they are called everywhere in slimdet, and ONNX Runtime's names.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "mps": "CoreMLExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}


class OnnxruntimeEngine:
    """Runs a bundle's .onnx files.

    Devices are "auto" (CUDA where this onnxruntime has it, else the CPU), "cpu", "cuda", "cuda:N", "mps" and "coreml".

    Raises:
        ConfigError: this onnxruntime has no such device.
    """

    name = "onnxruntime"

    def __init__(self, bundle: Manifest, options: EngineSettings) -> None:
        self._bundle, self._options, device = bundle, options, options.device
        self.least_conf = self.own_conf = exported_threshold(bundle)
        _share_memory()
        available = onnxruntime.get_available_providers()
        kind, _, number = device.partition(":")
        if device == "auto":
            kind = "cuda" if PROVIDERS["cuda"] in available else "cpu"
        if PROVIDERS.get(kind) not in available:
            names = ", ".join(name for name, provider in PROVIDERS.items() if provider in available)
            raise ConfigError(f"--device {device} is not to be had from this onnxruntime; available: {names}")
        self.device = kind + (f":{number}" if number else "")
        self._must_have = device != "auto"
        settings = {"device_id": number or "0"} if kind == "cuda" else {}
        self._providers: list[Any] = [(PROVIDERS[kind], settings)]
        if kind != "cpu":  # what the device cannot do
            self._providers.append(PROVIDERS["cpu"])

    def precision(self, width: float) -> Precision:
        # What was measured was measured on a CPU.
        return self._options.precision or (self._bundle.best("onnx", width) if self.device == "cpu" else "fp32")

    def files(self, width: float, precision: Precision | None = None) -> list[Path]:
        precision = precision or self.precision(width)
        return self._bundle.engine(self._kind(precision), width)

    def load(self, width: float, precision: Precision | None = None) -> "OnnxSession":
        precision = precision or self.precision(width)
        with self._bundle.opening(self._kind(precision), width) as files:
            return self._open(files[0], precision)

    def _kind(self, precision: Precision) -> str:
        check_precision(precision, ("fp32", "int8"), "onnxruntime", "engine openvino")
        return "onnx" if precision == "fp32" else f"onnx{INT8}"

    def _open(self, file: Path, precision: Precision) -> "OnnxSession":
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = self._options.threads or 0
        # Widths take turns: threads of one that wait awake would hold up the next, or another process.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            session = onnxruntime.InferenceSession(str(file), options, self._providers)
            said = session.get_modelmeta().custom_metadata_map["input"]
            given = [one.name for one in (*session.get_inputs(), *session.get_overridable_initializers())]
            outputs = EngineOutputs(file, [one.name for one in session.get_outputs()], len(self._bundle.classes))
            loaded = OnnxSession(session, FileInputs(file, said, given, self._options), outputs, precision)
        except (BundleError, ConfigError):
            raise
        except Exception as error:  # the library's exceptions have no base of their own
            version = onnxruntime.__version__
            raise BundleError(f"{file} cannot be run by onnxruntime {version}: {first_line(error)}") from error
        if self._must_have and self._providers[0][0] not in session.get_providers():
            raise ConfigError(f"--device {self.device} could not be started by onnxruntime; use cpu")
        return loaded


@cache
def _share_memory() -> None:
    """One pool of working memory for all sessions of this process: widths take turns in it."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, None)


class OnnxSession:
    """One width. ONNX Runtime's sessions may be run by several threads at once."""

    takes_resized = True

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: FileInputs,
        outputs: EngineOutputs,
        precision: Precision,
    ) -> None:
        self._session, self._outputs, self.precision = session, outputs, precision
        self._inputs, self.sides, self.proposals = inputs, inputs.sides, inputs.proposals

    def __call__(
        self, images: NDArray[np.uint8], conf: float = 1.0, imgsz: int | None = None, proposals: int | None = None
    ) -> Found:
        feeds = self._inputs(images, imgsz, proposals)
        with self._outputs.failing():
            values: Any = self._session.run(self._outputs.names, feeds)
        return self._outputs(values, images)
