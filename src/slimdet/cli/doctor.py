"""What this machine has for slimdet: versions, engines, devices; what is missing and the command that gets it.

Every package is imported in a process of its own: one that is broken, or that kills its process, is a finding and
nothing more. Only the standard library is needed here.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from slimdet.devices import BFLOAT16_CAPABILITY, cores, cpu_name, cpu_units

NO_BFLOAT16 = (
    "no device has instructions for it (Intel's have from Cooper Lake on, AMD's from Zen 4, NVIDIA's from Ampere)"
)
TIMEOUT = 300  # seconds for one import: torch from a cold disk on a busy machine takes many
GB = 2**30

# Runs in the child. What is printed last is read; libraries may print before it.
PROBE = """
import importlib, json, sys
from importlib import metadata
name, module, check = sys.argv[1:]
try:
    found = importlib.import_module(module)
except ModuleNotFoundError as error:
    if error.name not in (module, module.split(".")[0]):
        raise  # something that the package needs
    print(json.dumps({"missing": True}))
    sys.exit()
try:
    version = metadata.version(name)
except metadata.PackageNotFoundError:
    version = str(getattr(found, "__version__", "unknown"))
details = {}
exec(check)
print()
print(json.dumps({"version": version, "details": details}))
"""

TORCH_CHECK = """
import torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
cuda = [torch.cuda.get_device_properties(number) for number in range(count)]
details["cuda"] = [{"name": p.name, "memory_gb": round(p.total_memory / 2**30, 1), "capability": [p.major, p.minor]}
                   for p in cuda]
details["cuda_version"] = torch.version.cuda
details["mps"] = torch.backends.mps.is_available()
details["threads"] = torch.get_num_threads()
"""

# A torchvision that was built for another torch imports, or half imports, and lacks its compiled operators.
TORCHVISION_CHECK = """
import torch, torchvision
box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
torchvision.ops.nms(box, torch.ones(1), 0.5)
torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), [box], 2)
details["operators"] = True
"""


ONNXRUNTIME_CHECK = (
    "details['devices'] = [one.removesuffix('ExecutionProvider') for one in found.get_available_providers()]"
)
OPENVINO_CHECK = """
core = found.Core()
details["devices"] = core.available_devices
details["capabilities"] = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") if "CPU" in details["devices"] else []
"""


@dataclass(frozen=True)
class Package:
    """A package: its name, the module that is imported, what it is for, how to get it, a check beyond the import."""

    name: str
    module: str
    purpose: str
    get: str
    check: str = ""


def _extra(extra: str) -> str:
    return f"pip install 'slimdet[{extra}]'"


PACKAGES = (
    Package("numpy", "numpy", "everything", "pip install numpy"),
    Package("pillow", "PIL", "reading images", "pip install pillow"),
    Package("onnxruntime", "onnxruntime", "running exported models", "pip install onnxruntime", ONNXRUNTIME_CHECK),
    Package("torch", "torch", "training, running what was not exported", _extra("train"), TORCH_CHECK),
    Package("torchvision", "torchvision", "detectors", _extra("train"), TORCHVISION_CHECK),
    Package("safetensors", "safetensors", "bundles", _extra("train")),
    Package("PyYAML", "yaml", "data sets", _extra("train")),
    Package("faster-coco-eval", "faster_coco_eval", "evaluation", _extra("train")),
    Package("pycocotools", "pycocotools.mask", "evaluation, masks", _extra("train")),
    Package("rich", "rich", "tables of results", _extra("train")),
    Package("tensorboard", "tensorboard", "training curves", _extra("train")),
    Package("matplotlib", "matplotlib", "pictures of results", _extra("plot")),
    Package("jinja2", "jinja2", "the page of a benchmark", _extra("plot")),
    Package("opencv-python-headless", "cv2", "the original's resizing", _extra("original")),
    Package("onnx", "onnx", "exporting", _extra("export")),
    Package("openvino", "openvino", "another engine", _extra("openvino"), OPENVINO_CHECK),
    Package("nncf", "nncf", "8 bits for OpenVINO", _extra("int8")),
    Package("starlette", "starlette", "serving", _extra("serve")),
    Package("uvicorn", "uvicorn", "serving", _extra("serve")),
    Package("prometheus-client", "prometheus_client", "the server's metrics", _extra("serve")),
    Package("av", "av", "video", _extra("video")),
    Package("trackers", "trackers", "tracks of a video", _extra("video")),
    Package("ray", "ray", "jobs over very many images", _extra("ray")),
)


@dataclass(frozen=True)
class Findings:
    """What a machine has.

    Attributes:
        cpu: "name", "cores", "memory_gb" (None where it is not known).
        packages: by name "status" ("ok", "missing", or "broken" with the "problem"), "version", "purpose", "details".
        devices: what torch can compute on.
        bfloat16: those among them that have instructions for it, so that `train --bf16` is worth it.
        engines: those of `slimdet.Runtime` that work here, and what each can run on, in its own words.
        precisions: which of them the CPU has here, by name: the engines that have it and why, or why none does.
        missing: of each package that is not "ok": "what", "why", and the command to "get" it.
    """

    slimdet: str
    python: str
    platform: str
    cpu: dict[str, Any]
    packages: dict[str, dict[str, Any]]
    devices: list[str]
    bfloat16: list[str]
    engines: dict[str, list[str]]
    precisions: dict[str, str]
    missing: list[dict[str, str]]


def doctor(packages: Sequence[Package] | None = None) -> Findings:
    """Examine this machine; takes as long as importing torch does."""
    from slimdet import __version__

    packages = PACKAGES if packages is None else packages
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
        found = dict(zip([package.name for package in packages], pool.map(_probe, packages), strict=True))
    return Findings(
        slimdet=__version__,
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        cpu={"name": cpu_name(), "cores": cores(), "memory_gb": _memory_gb()},
        packages=found,
        devices=_devices(found),
        bfloat16=_with_bfloat16(found),
        engines=_engines(found),
        precisions=_precisions(found),
        missing=[_lacking(one, found[one.name]) for one in packages if found[one.name]["status"] != "ok"],
    )


def text(findings: Findings) -> str:
    """The findings of `doctor` for a person: plain text, so that it can be shown whatever is broken."""
    cpu = findings.cpu
    memory = f", {cpu['memory_gb']} GB of memory" if cpu["memory_gb"] else ""
    lines = [
        f"slimdet {findings.slimdet}, Python {findings.python}",
        f"{cpu['name']}, {cpu['cores']} cores{memory}; {findings.platform}",
        f"devices: {', '.join(findings.devices)}",
        f"bfloat16 (train --bf16): {', '.join(findings.bfloat16) or NO_BFLOAT16}",
        *(f"engine {name}: {', '.join(devices)}" for name, devices in findings.engines.items()),
        *(f"precision {name}: {why}" for name, why in findings.precisions.items()),
        "",
    ]
    for name, package in findings.packages.items():
        state = package["version"] if package["status"] == "ok" else package["status"]
        lines.append(f"  {name:<24}{state:<16}{package['purpose']}")
    lines.append("")
    for what, item in _grouped(findings.missing).items():
        lines.append(f"{what}: {item['why']}; get it with: {item['get']}")
    return "\n".join(lines if findings.missing else [*lines, "Nothing is missing."])


def _grouped(missing: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """What one command gets for the same reason, under one heading."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in missing:
        groups.setdefault((item["why"], item["get"]), []).append(item["what"])
    return {", ".join(names): {"why": why, "get": get} for (why, get), names in groups.items()}


def _probe(package: Package) -> dict[str, Any]:
    command = [sys.executable, "-P", "-c", PROBE, package.name, package.module, package.check]
    finding = {"status": "broken", "version": None, "purpose": package.purpose}
    try:
        child = subprocess.run(command, capture_output=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return finding | {"problem": f"importing it took more than {TIMEOUT} s"}
    except OSError as error:
        return finding | {"problem": str(error)}
    said, complained = (output.decode(errors="replace").strip() for output in (child.stdout, child.stderr))
    if child.returncode < 0:
        return finding | {"problem": f"importing it crashes (signal {-child.returncode})"}
    if child.returncode > 0 or not said.endswith("}"):
        return finding | {"problem": complained.splitlines()[-1] if complained else f"exit code {child.returncode}"}
    answer = json.loads(said.splitlines()[-1])
    return finding | ({"status": "missing"} if "missing" in answer else {"status": "ok"} | answer)


def _lacking(package: Package, finding: Mapping[str, Any]) -> dict[str, str]:
    if finding["status"] == "missing":
        return {"what": package.name, "why": "not installed", "get": package.get}
    # Torch and torchvision are built for one another: a broken one is cured by fetching the pair.
    names = "torch torchvision" if package.name in ("torch", "torchvision") else package.name
    return {
        "what": package.name,
        "why": f"does not work: {finding['problem']}",
        "get": f"pip install --force-reinstall {names}",
    }


def _devices(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    details = found.get("torch", {}).get("details", {})
    cuda = [f"cuda:{n} {one['name']} ({one['memory_gb']} GB)" for n, one in enumerate(details.get("cuda", []))]
    return ["cpu", *cuda, *(["mps"] if details.get("mps") else [])]


def _with_bfloat16(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    cuda = found.get("torch", {}).get("details", {}).get("cuda", [])
    able = [f"cuda:{n}" for n, one in enumerate(cuda) if tuple(one["capability"]) >= BFLOAT16_CAPABILITY]
    return ["cpu"] * bool(cpu_units()["bf16"]) + able


def _engines(found: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The engines of `slimdet.Runtime` that work here, and what each can run on, in its own words."""
    engines = {
        name: list(found[name]["details"]["devices"])
        for name in ("onnxruntime", "openvino")
        if found.get(name, {}).get("status") == "ok"
    }
    works = all(found.get(name, {}).get("status") == "ok" for name in ("torch", "torchvision"))
    return engines | ({"torch": _devices(found)} if works else {})


def _precisions(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    engines, units = _engines(found), cpu_units()
    names = {name: ", ".join(instructions) for name, instructions in units.items()}
    exported = ", ".join(name for name in engines if name != "torch")
    fast = f"the processor has {names['int8']}" if names["int8"] else "no instructions for it are known here: measure"
    precisions = {
        "fp32": ", ".join(engines) or "no engine",
        "int8": f"{exported or 'no engine'}, of files by 'slimdet export --int8'; {fast}",
    }
    if "openvino" not in engines:
        why = "no engine; openvino has it where the processor does"
    elif "BF16" in found["openvino"]["details"].get("capabilities", ()):
        why = f"openvino; the processor has {names['bf16'] or 'it'}"
    else:
        why = "no engine; openvino does not find it in this processor"
    return precisions | {"bf16": why, "fp16": "no engine on a CPU; openvino on a GPU"}


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
