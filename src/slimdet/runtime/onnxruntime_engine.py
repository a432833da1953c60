"""ONNX Runtime: the default engine."""

import ctypes
import sys
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from slimdet.bundle.ladder import Precision
from slimdet.bundle.manifest import INT8, Manifest
from slimdet.bundle.mapped import mapped
from slimdet.errors import BundleError, ConfigError
from slimdet.messages import first_line
from slimdet.runtime.engine import EngineSettings, Found, check_precision, exported_threshold
from slimdet.runtime.exported import STORED, EngineOutputs, FileInputs

# Devices as they are called everywhere in slimdet, and ONNX Runtime's names.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "mps": "CoreMLExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
COPYING = ["ConstantFolding", "FuseFp16InitializerToFp32NodeTransformer"]  # optimizers that copy what files link to


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
        # What was measured was measured on a CPU. Files in 8 bits have weights of their own, which take memory.
        measured = self.device == "cpu" and self._options.memory == "fast"
        return self._options.precision or (self._bundle.best("onnx", width) if measured else "fp32")

    def files(self, width: float, precision: Precision | None = None) -> list[Path]:
        precision = precision or self.precision(width)
        files = self._bundle.engine(self._kind(precision), width)
        self._check_memory(files)
        return files

    def load(self, width: float, precision: Precision | None = None) -> "OnnxSession":
        precision = precision or self.precision(width)
        with self._bundle.opening(self._kind(precision), width) as files:
            self._check_memory(files)
            return self._open(files[0], precision)

    def _check_memory(self, files: list[Path]) -> None:
        if self._options.memory == "low" and len(files) == 1:
            way = f"slimdet export --model {self._bundle.name} --linked"
            raise ConfigError(f"{files[0]} has weights of its own and no memory 'low'; make it with '{way}'")

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
        options.enable_mem_pattern = False  # a plan, and a block of memory, for each width
        low = self._options.memory == "low"
        try:
            if low:
                for name, value in self._stored.items():
                    options.add_initializer(name, value)
            session = onnxruntime.InferenceSession(
                str(file), options, self._providers, disabled_optimizers=COPYING if low else None
            )
            said = session.get_modelmeta().custom_metadata_map["input"]
            given = [one.name for one in (*session.get_inputs(), *session.get_overridable_initializers())]
            outputs = EngineOutputs(file, [one.name for one in session.get_outputs()], len(self._bundle.classes))
            loaded = OnnxSession(session, FileInputs(file, said, given, self._options), outputs, precision)
            loaded.kept = self._stored if low else None
        except (BundleError, ConfigError):
            raise
        except Exception as error:  # the library's exceptions have no base of their own
            version = onnxruntime.__version__
            raise BundleError(f"{file} cannot be run by onnxruntime {version}: {first_line(error)}") from error
        if self._must_have and self._providers[0][0] not in session.get_providers():
            raise ConfigError(f"--device {self.device} could not be started by onnxruntime; use cpu")
        _give_back()
        return loaded

    @cached_property
    def _stored(self) -> dict[str, onnxruntime.OrtValue]:
        """One mapping of the weights' file for all widths: each session by itself would map, and count, it again."""
        tensors = mapped(self._bundle.weights_file)
        return {STORED + name: onnxruntime.OrtValue.ortvalue_from_numpy(one.values) for name, one in tensors.items()}


def _give_back() -> None:
    """What making a session took for a while goes back to the system; glibc would keep it, as much as all weights."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)


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

    kept: Any = None  # weights that the session points to and does not hold

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
