"""The choice among the engines."""

from importlib.util import find_spec

from slimdet.bundle.manifest import Manifest
from slimdet.errors import BundleError, ConfigError
from slimdet.runtime.engine import Engine

ENGINES = ("onnxruntime", "openvino", "torch")


def choose(name: str, bundle: Manifest) -> str:
    """The engine of that name; "auto" is onnxruntime where the bundle has exported widths, torch otherwise.

    Raises:
        ConfigError: no such engine.
        BundleError: nothing here can run this bundle.
    """
    if name == "auto":
        if bundle.engines("onnx"):
            return "onnxruntime"
        if find_spec("torch"):
            return "torch"
        raise BundleError(
            f"{bundle.name} was not exported and torch is not installed; run 'slimdet export --model {bundle.name}' "
            "where torch is, or get it with: pip install 'slimdet[train]'"
        )
    if name not in ENGINES:
        raise ConfigError(f"engine {name!r} is not one of auto, {', '.join(ENGINES)}")
    return name


def make(
    name: str, bundle: Manifest, device: str, threads: int | None, conf: float, imgsz: int | None = None
) -> Engine:
    """The engine `name`, one of `ENGINES`, for a bundle.

    Raises:
        ConfigError: it is not installed, or has no such device or image size.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads {threads} must be 1 or more")
    if name == "torch":
        from slimdet.runtime.torch_engine import TorchEngine

        return TorchEngine(bundle, device, threads, conf, imgsz)
    if imgsz is not None:
        raise ConfigError(
            f"--imgsz {imgsz}: exported engines have their size within; run 'slimdet export --model {bundle.name} "
            f"--imgsz {imgsz}' first, or use --engine torch"
        )
    if name == "openvino":
        from slimdet.runtime.openvino_engine import OpenvinoEngine

        return OpenvinoEngine(bundle, device, threads)
    from slimdet.runtime.onnxruntime_engine import OnnxruntimeEngine

    return OnnxruntimeEngine(bundle, device, threads)
