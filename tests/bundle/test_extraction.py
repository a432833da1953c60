"""`slimdet extract`: a detector that needs no slimdet."""

import json
import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import slimdet
from scenes_detector import tiny_model
from slimdet.bundle.card import Card
from slimdet.cli.verbs import main
from slimdet.models.suppression import set_suppression

Capture = pytest.CaptureFixture[str]

# Runs extracted detectors where slimdet cannot be imported: -I leaves out the paths of tests and checkout, and the
# finder refuses an installed one.
ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "slimdet":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import torch, torchvision

torch.set_num_threads(1)
images, *files = torch.load(sys.argv[1])
found = []
for file in files:
    detector = torch.load(file, weights_only=False).eval()
    with torch.no_grad():
        found.append(detector(images))
assert not any(name.split(".")[0] == "slimdet" for name in sys.modules)
torch.save(found, sys.argv[2])
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    made = {"boxes": tiny_model(), "masks": tiny_model(masks=True)}
    for model in made.values():
        for width in model.widths:  # norms of their own, with statistics that differ
            for name, buffer in model.twin(width).named_buffers():
                if name.endswith("running_mean"):
                    buffer.copy_(torch.randn_like(buffer) * 0.1)
    return {
        name: str(slimdet.save(model, folder / name, Card(("cat", "dog"), (3, 17)))) for name, model in made.items()
    }


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def extract(model: str, width: float, capsys: Capture, *words: str) -> dict:
    assert main(["extract", "--model", model, "--width", str(width), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def same(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in zip(one, other, strict=True)
    )


def test_it_runs_without_slimdet_and_finds_the_same_to_the_last_bit(bundles: dict[str, str], capsys: Capture) -> None:
    images = [torch.rand(3, 64, 80), torch.rand(3, 90, 70)]
    expected, files = [], []
    for kind, width in (("boxes", 0.5), ("boxes", 1.0), ("masks", 0.5)):
        written = extract(bundles[kind], width, capsys)
        files.append(str(Path(written["out"], "detector.pt").absolute()))
        with torch.no_grad():
            expected.append(slimdet.load(bundles[kind])(images, width=width))
    torch.save([images, *files], "asked.pt")
    done = subprocess.run([sys.executable, "-I", "-c", ALONE, "asked.pt", "found.pt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = torch.load("found.pt")
    assert all(len(result["boxes"]) for results in found for result in results)
    assert "masks" in found[2][0]
    for alone, ours in zip(found, expected, strict=True):
        assert same(alone, ours)
    assert not same(found[0], found[1])  # the width makes a difference


def test_only_torchvision_and_torch_are_named_in_the_file(bundles: dict[str, str], capsys: Capture) -> None:
    file = Path(extract(bundles["masks"], 0.5, capsys)["out"]) / "detector.pt"
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        operations = list(pickletools.genops(archive.read(name)))
    # Protocol 2, which torch.save writes, names every class and function in one such operation.
    assert {operation.name for operation, _, _ in operations} & {"STACK_GLOBAL"} == set()
    modules = {str(argument).split()[0] for operation, argument, _ in operations if operation.name == "GLOBAL"}
    assert {module.split(".")[0] for module in modules} <= {"torch", "torchvision", "collections", "__builtin__"}
    assert "torchvision.models.detection.mask_rcnn" in modules


def test_the_other_two_files(bundles: dict[str, str], capsys: Capture) -> None:
    written = extract(bundles["boxes"], 0.5, capsys, "--out", "half")
    plain = slimdet.load(bundles["boxes"]).extract(0.5)
    weights = load_file("half/weights.safetensors")
    state = plain.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[key], value) for key, value in state.items())
    document = json.loads(Path("half/detector.json").read_text())
    assert written == {"out": "half", **document, "files": ["detector.pt", "weights.safetensors", "detector.json"]}
    assert sorted(written["files"]) == sorted(file.name for file in Path("half").iterdir())
    assert (document["width"], document["classes"], document["category_ids"]) == (0.5, ["cat", "dog"], [3, 17])
    assert document["parameters"] == sum(parameter.numel() for parameter in plain.parameters())


def test_what_is_printed_runs(bundles: dict[str, str], capsys: Capture) -> None:
    out = "it's half"  # a path that needs quoting
    assert main(["extract", "--model", bundles["boxes"], "--width", "0.5", "--out", out]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    names = {"image": torch.rand(3, 64, 64)}
    exec("\n".join(lines), names)
    assert names["found"].keys() == {"boxes", "labels", "scores"}  # pyright: ignore[reportAttributeAccessIssue]


def test_suppression_across_classes_is_left_to_do(capsys: Capture) -> None:
    model = tiny_model()
    plain = model.twin(1.0)
    set_suppression(plain, "all")
    slimdet.save(model, "across", Card(("cat", "dog"), (3, 17)))
    assert main(["extract", "--model", "across", "--width", "1.0", "--out", "out"]) == 0
    names: dict = {"image": torch.rand(3, 64, 64)}
    exec("\n".join(line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")), names)
    assert json.loads(Path("out/detector.json").read_text())["nms"] == "all"
    with torch.no_grad():
        (ours,) = slimdet.load("across")([names["image"]])
    assert 0 < len(ours["scores"]) < len(names["found"]["scores"])
    assert torch.equal(names["found"]["boxes"][names["kept"]], ours["boxes"])


def test_nothing_is_overwritten(bundles: dict[str, str], capsys: Capture) -> None:
    assert [extract(bundles["boxes"], 0.5, capsys)["out"] for _ in range(2)] == ["runs/extract-1", "runs/extract-2"]
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("keep")
    for out in ("mine", "mine/notes.txt"):
        assert main(["extract", "--model", bundles["boxes"], "--width", "0.5", "--out", out]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert f"--out {out} already exists" in said.err
    assert [file.name for file in Path("mine").iterdir()] == ["notes.txt"]
    assert Path("mine/notes.txt").read_text() == "keep"


def test_a_width_that_the_model_does_not_have_leaves_nothing(bundles: dict[str, str], capsys: Capture) -> None:
    assert main(["extract", "--model", bundles["boxes"], "--width", "0.6", "--out", "here"]) == 2
    assert "width 0.6 is not one of 0.5, 1.0" in capsys.readouterr().err
    assert not Path("here").exists()
