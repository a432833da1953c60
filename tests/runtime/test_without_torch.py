"""The runtime and the verbs on it work where neither torch nor the other extras are installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.mask_engine import mask_bundle
from slimdet.assets import PHOTOGRAPHS

ABSENT = [
    *("torch", "torchvision", "safetensors", "pycocotools", "faster_coco_eval", "yaml", "rich", "tensorboard"),
    *("matplotlib", "cv2", "onnx", "openvino"),
]
TABBY = str(PHOTOGRAPHS / "tabby.jpg")


def run(code: str, folder: Path) -> str:
    """What the code prints in a process where nothing of `ABSENT` is found."""
    bare = f"""
import sys
def without(finder):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            return None if name.split(".")[0] in {ABSENT} else finder.find_spec(name, path, target)
    return Finder()
sys.meta_path[:] = map(without, sys.meta_path)
from slimdet.cli.verbs import main
{code}
"""
    done = subprocess.run([sys.executable, "-c", bare], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_runtime_and_results(tmp_path: Path) -> None:
    code = f"""
import slimdet
detector = slimdet.Runtime(width=0.25).prepare()
result = detector({TABBY!r}, width=1.0)
print(result.names, len(result.to_coco(1)))
result.save("found.jpg")
"""
    assert run(code, tmp_path) == "['cat'] 1\n"
    assert (tmp_path / "found.jpg").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", TABBY, "--model", "bundled"], "1 images, "),
        (["predict", TABBY, "--model", "masks"], "1 images, 2 detections"),
        (["demo"], "pictures are in runs/demo"),
        (["profile", "--model", "masks", "--repeats", "1"], "onnxruntime on cpu"),
        (["benchmark", "--model", "masks", "--repeats", "1"], "no accuracy was measured"),
    ],
)
def test_verbs(words: list[str], said: str, tmp_path: Path) -> None:
    mask_bundle(tmp_path / "masks")
    assert said in run(f"sys.exit(main({words!r}))", tmp_path)


def test_what_needs_torch_says_so(tmp_path: Path) -> None:
    words = ["predict", TABBY, "--model", "bundled", "--engine", "torch"]
    code = f"""
from contextlib import redirect_stderr
with redirect_stderr(sys.stdout):
    assert main({words!r}) == 2
"""
    assert run(code, tmp_path) == "slimdet: torch is not installed; get it with: pip install 'slimdet[train]'\n"
