"""The doctor on machines where something is missing, broken, or deadly."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from slimdet.cli import doctor
from slimdet.cli.command import EXTRAS
from slimdet.cli.doctor import PACKAGES, Package


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of fake modules that the doctor's processes see first."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def examine(name: str, check: str = "") -> doctor.Findings:
    return doctor.doctor([Package(name, name, "a test", f"pip install {name}", check)])


def test_a_package_that_works(modules: Path) -> None:
    (modules / "fine.py").write_text("print('a greeting')\n__version__ = '3.2'")
    findings = examine("fine", "details['devices'] = ['CPU']")
    assert findings.packages["fine"] == {
        "status": "ok",
        "version": "3.2",
        "purpose": "a test",
        "details": {"devices": ["CPU"]},
    }
    assert findings.missing == []
    assert "Nothing is missing" in doctor.text(findings)


def test_a_missing_package_comes_with_the_command_that_gets_it(modules: Path) -> None:
    findings = examine("absent_package")
    assert findings.packages["absent_package"]["status"] == "missing"
    assert findings.missing == [{"what": "absent_package", "why": "not installed", "get": "pip install absent_package"}]
    assert "absent_package: not installed; get it with: pip install absent_package" in doctor.text(findings)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms does not exist"),
        ("import something_else_that_is_absent", "No module named 'something_else_that_is_absent'"),
        ("import os; os.kill(os.getpid(), 11)", "crashes (signal 11)"),
        ("import os; os._exit(0)", "exit code 0"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("this is no python", "SyntaxError"),
    ],
)
def test_a_broken_package_is_a_finding(modules: Path, source: str, problem: str) -> None:
    (modules / "sick.py").write_text(source)
    findings = examine("sick")
    assert findings.packages["sick"]["status"] == "broken"
    assert problem in findings.packages["sick"]["problem"]
    assert findings.missing[0]["get"] == "pip install --force-reinstall sick"
    assert problem in doctor.text(findings)


def test_a_package_whose_check_fails_is_broken(modules: Path) -> None:
    (modules / "half.py").write_text("")
    assert "half" in examine("half", "found.operator()").missing[0]["what"]


def test_a_package_that_never_answers(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (modules / "slow.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "TIMEOUT", 0.5)
    assert "took more than" in examine("slow").packages["slow"]["problem"]


def test_this_machine() -> None:
    torchvision = next(package for package in PACKAGES if package.name == "torchvision")
    findings = doctor.doctor([torchvision])
    assert findings.packages["torchvision"]["details"] == {"operators": True}
    assert findings.cpu["cores"] >= 1
    json.dumps(asdict(findings), allow_nan=False)


def test_engines_and_what_they_run_on() -> None:
    engines = ("onnxruntime", "openvino")
    findings = doctor.doctor([package for package in PACKAGES if package.name in engines])
    assert "CPU" in findings.engines["onnxruntime"]
    assert "CPU" in findings.engines["openvino"]
    assert "torch" not in findings.engines  # it was not looked for
    assert re.search(r"^engine onnxruntime: .*CPU", doctor.text(findings), re.M)


def test_precisions_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cpu_units", lambda: {"int8": ["avx512_vnni"], "bf16": []})
    works = {"status": "ok", "details": {"devices": ["CPU"], "capabilities": ["FP32", "FP16", "INT8"]}}
    assert doctor._precisions({"onnxruntime": works, "openvino": works}) == {
        "fp32": "onnxruntime, openvino",
        "int8": "onnxruntime, openvino, of files by 'slimdet export --int8'; the processor has avx512_vnni",
        "bf16": "no engine; openvino does not find it in this processor",
        "fp16": "no engine on a CPU; openvino on a GPU",
    }
    lacking = doctor._precisions({"onnxruntime": works})
    assert lacking["bf16"] == "no engine; openvino has it where the processor does"
    monkeypatch.setattr(doctor, "cpu_units", lambda: {"int8": [], "bf16": []})
    assert "no instructions for it are known here: measure" in doctor._precisions({"onnxruntime": works})["int8"]


def test_precisions_of_this_machine_are_those_that_openvino_reports() -> None:
    findings = doctor.doctor([package for package in PACKAGES if package.name == "openvino"])
    has = findings.packages["openvino"]["details"]["capabilities"]
    assert ("BF16" in has) == findings.precisions["bf16"].startswith("openvino; ")
    assert re.search(r"^precision fp32: openvino$", doctor.text(findings), re.M)


def test_devices_that_torch_reports() -> None:
    details: dict = {}
    exec(doctor.TORCH_CHECK, {"details": details})  # what the doctor's process runs
    assert details["threads"] == torch.get_num_threads()
    assert len(details["cuda"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_devices_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [
        {"name": "old", "memory_gb": 8.0, "capability": [7, 5]},
        {"name": "new", "memory_gb": 24.0, "capability": [9, 0]},
    ]
    monkeypatch.setattr(
        doctor, "_probe", lambda _: {"status": "ok", "version": "1", "purpose": "", "details": {"cuda": gpus}}
    )
    torch_alone = [package for package in PACKAGES if package.name == "torch"]
    none: dict[str, list[str]] = {"int8": [], "bf16": []}
    for units, devices in ((none | {"bf16": ["amx_bf16"]}, ["cpu", "cuda:1"]), (none, ["cuda:1"])):
        monkeypatch.setattr(doctor, "cpu_units", lambda units=units: units)
        findings = doctor.doctor(torch_alone)
        assert findings.bfloat16 == devices
        assert f"bfloat16 (train --bf16): {', '.join(devices)}" in doctor.text(findings)
    gpus.clear()
    assert "no device has instructions for it (Intel" in doctor.text(doctor.doctor(torch_alone))


def test_works_with_the_standard_library_alone(tmp_path: Path) -> None:
    # -S leaves out site-packages: neither torch nor numpy nor rich are to be had, here or in the doctor's processes.
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    (tmp_path / "python").chmod(0o755)
    python = str(tmp_path / "python")
    code = f"import sys; sys.executable = {python!r}; from slimdet.cli.verbs import main; sys.exit(main(['doctor']))"
    source = str(Path(doctor.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=os.environ | {"PYTHONPATH": source}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "torch, torchvision" in done.stdout
    assert "pip install 'slimdet[train]'" in done.stdout
    assert done.stderr == ""


def test_knows_every_dependency() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    known = {package.name.lower(): package for package in PACKAGES}
    for requirement in project["dependencies"]:
        assert re.split("[>=]", requirement)[0] in known
    for extra in ("plot", "train", "original", "export", "openvino", "int8", "serve"):
        for requirement in project["optional-dependencies"][extra]:
            name = re.split("[>=]", requirement)[0]
            if not name.startswith("slimdet["):
                assert known[name].get == f"pip install 'slimdet[{extra}]'"
                assert EXTRAS[known[name].module.split(".")[0]] == extra
