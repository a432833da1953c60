"""From PNG to detections: the numbers of the original system itself, at every width.

The tolerances are those of the reference: what another convolution kernel may change (tests/assets/original/README.md).
"""

import hashlib
import importlib.util
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle
from torch import nn

from slimdet.original.commands import run_test
from slimdet.original.configs.config import read_config
from slimdet.original.data.pipeline import read_bgr, resize
from slimdet.original.data.unpickle import unpickle
from slimdet.original.detector.detector import WIDTHS
from slimdet.original.testing.prepare import ready
from slimdet.original.testing.run import load_model

from .reference import SHIPPED, Reference

IMAGES = ("coffee", "astronaut", "chelsea_portrait")  # in the order of tiny_coco.json
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "parity" / "inference.py"


@pytest.fixture(scope="module")
def results(synthetic: Any, reference_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """results(kind)[width] -> what tools/test.py wrote: (pickled results, COCO JSON)."""
    made: dict[str, dict[float, Any]] = {}

    def make(kind: str) -> dict[float, Any]:
        if kind not in made:
            out = tmp_path_factory.mktemp(kind) / "x.pkl"
            run_test(str(reference_config(kind)), str(synthetic(kind)), width_mult=["all"], out=str(out))
            files = {width: out.with_name(f"x_{width}.pkl") for width in WIDTHS}
            made[kind] = {
                width: (unpickle(file), json.loads(Path(f"{file}.json").read_text())) for width, file in files.items()
            }
        return made[kind]

    return make


def partners(found: np.ndarray, wanted: np.ndarray, same: np.ndarray) -> np.ndarray:
    """For each wanted row (inclusive box, score) the place of its partner in `found`, -1 without one."""
    if not len(found):
        return np.full(len(wanted), -1)
    distance = np.abs(found[None, :, :4] - wanted[:, None, :4]).max(axis=2)
    distance[~same | (np.abs(found[None, :, 4] - wanted[:, None, 4]) > 1e-3)] = np.inf
    best = distance.argmin(axis=1)
    return np.where(distance[np.arange(len(wanted)), best] <= 0.05, best, -1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("kind", ["faster", "mask"])
def test_detections(results: Any, original: Reference, kind: str, image: str, width: float) -> None:
    numbers = original.run(kind, image, width)
    result = results(kind)[width][0][IMAGES.index(image)]
    by_class, codes = result if kind == "mask" else (result, None)
    found = np.concatenate(by_class)
    labels = np.repeat(np.arange(80), [len(rows) for rows in by_class])
    wanted = np.column_stack([numbers["result/boxes"].reshape(-1, 4), numbers["result/scores"]])
    assert len(found) == len(wanted)
    same = labels[None] == numbers["result/labels"][:, None]
    partner = partners(found, wanted, same)
    lonely = (partner < 0).sum() + len(found) - len(set(partner[partner >= 0]))
    assert lonely <= 0.01 * (len(found) + len(wanted))
    if codes is not None:
        mine = [code for of_class in codes for code in of_class]
        for place, code in zip(partner, json.loads(bytes(numbers["result/rle_json"])), strict=True):
            assert place < 0 or rle.iou([mine[place]], [code], [0])[0, 0] >= 0.99


@pytest.mark.parametrize("width", WIDTHS)
def test_proposals(results: Any, original: Reference, width: float) -> None:
    pickled, found_json = results("rpn")[width]
    wanted = original.run("rpn", "coffee", width)["result/proposals"]
    found = pickled[0]
    assert len(found) == len(wanted)
    partner = partners(found, wanted, np.ones((len(wanted), len(found)), bool))
    assert (partner < 0).sum() <= 0.01 * len(wanted)
    assert len(found_json) == sum(map(len, pickled))


@pytest.mark.parametrize(("kind", "image"), [("rpn", "coffee"), ("mask", "chelsea_portrait"), ("faster", "astronaut")])
def test_features_and_proposals_step_by_step(
    synthetic: Any, reference_config: Any, original: Reference, kind: str, image: str
) -> None:
    spec = importlib.util.spec_from_file_location("inference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    inference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(inference)
    config = read_config(reference_config(kind))
    pixels = read_bgr(original.images / f"{image}.png")

    def run(model: nn.Module, width: float) -> dict[str, Any]:
        return inference.run(ready(model, width), pixels, (512, 320), config.data.test.img_norm_cfg, 32)

    model = load_model(config, synthetic(kind))
    for width in WIDTHS:
        numbers = original.run(kind, image, width)
        found = run(model, width)
        steps = [key for key in numbers if key.endswith("/sample")]
        assert len(steps) == 20
        for key in steps:
            shape = key.replace("/sample", "/shape")
            assert tuple(found[shape]) == tuple(numbers[shape]), shape
            limit = 0 if key.startswith("input") else 2e-4
            assert np.abs(found[key] - numbers[key]).max() <= limit, key
        best, wanted = found["proposals/top200"], numbers["proposals/top200"]
        distance = np.abs(best[:, None, :4] - wanted[None, :, :4]).max(axis=2)
        assert max(distance.min(axis=0).max(), distance.min(axis=1).max()) <= 5e-3  # pixels
        assert found["proposals/count"] == numbers["proposals/count"]
        # Among 2000 there may be a tie, which processors break in their own ways: weights that differ in the last bit
        # then lead to either outcome, and one of the two must be the original's.
        nudged = (run(inference.nudged(load_model(config, synthetic(kind)), draw), width) for draw in range(8))
        sums = (other["proposals/sum"] for other in itertools.chain([found], nudged))
        assert any(np.abs(total - numbers["proposals/sum"]).max() <= 2 for total in sums)


@pytest.mark.parametrize("image", IMAGES)
def test_resizing_is_opencvs(original: Reference, image: str) -> None:
    pixels = read_bgr(original.images / f"{image}.png")
    numbers = original.run("faster", image, 0.25)
    resized, frame = resize(pixels, (512, 320))
    assert hashlib.sha256(resized.tobytes()).hexdigest() == str(numbers["input/resized_sha256"])
    assert frame.size == tuple(numbers["meta/img_shape"][:2])
    assert frame.scale == pytest.approx(float(numbers["meta/scale_factor"]), abs=1e-12)


def test_what_ships_is_what_the_original_wrote(original: Reference) -> None:
    whole = original.whole()
    for file in SHIPPED.glob("*.npz"):
        wanted = np.load(whole / "reference" / file.name)
        for name, value in np.load(file).items():
            if name == "input/resized_sha256":
                assert str(value) == hashlib.sha256(wanted["input/resized_bgr"].tobytes()).hexdigest()
            else:
                assert value.tobytes() == wanted[name].tobytes(), (file.name, name)
    for file in SHIPPED.glob("*.json.xz"):
        source = next(whole.rglob(file.stem))
        assert original.json(file.stem) == json.loads(source.read_text())
