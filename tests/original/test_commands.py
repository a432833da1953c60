"""The original's test command from end to end, on a small detector."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slimdet.errors import ConfigError, SlimdetError, WidthError
from slimdet.original.commands import coco_eval, parse_widths, run_test
from slimdet.original.data.unpickle import unpickle

Small = Callable[[str], tuple[Path, Path]]
TOOLS = Path(__file__).parents[2] / "tools"


def texts(small: Small, kind: str) -> tuple[str, str]:
    config, weights = small(kind)
    return str(config), str(weights)


def test_masks_at_two_widths(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "x.pkl"
    scores = run_test(*texts(small, "mask"), width_mult=["0.25,1.0"], eval=["bbox", "segm"], out=str(out))
    assert set(scores) == {0.25, 1.0}
    assert all(len(numbers) == 12 for kinds in scores.values() for numbers in kinds.values())
    printed = capsys.readouterr().out
    assert "width 0.25, bbox:" in printed
    assert "width 1.0, segm:" in printed
    results = unpickle(out.with_name("x_1.0.pkl"))
    assert len(results) == 3
    boxes, masks = results[0]
    assert len(boxes) == len(masks) == 3
    assert [len(rows) for rows in boxes] == [len(codes) for codes in masks]
    found = json.loads(out.with_name("x_1.0.pkl.json").read_text())
    assert found
    assert {item["image_id"] for item in found} <= {10, 20, 30}
    assert {item["category_id"] for item in found} <= {7, 14, 21}
    assert all(len(item["bbox"]) == 4 and "counts" in item["segmentation"] for item in found)
    assert sum(len(rows) for result in results for rows in result[0]) == len(found)


def test_one_width_writes_exactly_there(small: Small, tmp_path: Path) -> None:
    run_test(*texts(small, "faster"), width_mult=["0.5"], out=str(tmp_path / "x.pkl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pkl", "x.pkl.json"]


def test_proposals_feed_fast_rcnn(small: Small, pictures: Path, tmp_path: Path) -> None:
    config, weights = texts(small, "rpn")
    file = pictures / "proposals.pkl"
    scores = run_test(config, weights, width_mult=["0.5"], eval=["proposal", "proposal_fast"], out=str(file))
    assert len(scores[0.5]["proposal_fast"]) == 3
    proposals = unpickle(file)
    assert all(isinstance(boxes, np.ndarray) and boxes.shape[1] == 5 for boxes in proposals)
    fast = run_test(*texts(small, "fast"), width_mult=["0.5"], eval=["bbox"], out=str(tmp_path / "fast.pkl"))
    assert len(fast[0.5]["bbox"]) == 12
    assert len(unpickle(tmp_path / "fast.pkl")) == 3
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SlimdetError, match=r"proposals\.pkl"):
        run_test(*texts(small, "fast"), eval=["bbox"])


def test_nothing_found_is_a_result(small: Small, tmp_path: Path) -> None:
    config, weights = texts(small, "faster")
    silent = tmp_path / "silent.py"
    silent.write_text(Path(config).read_text().replace("score_thr=0.2", "score_thr=1.0"))
    scores = run_test(str(silent), weights, eval=["bbox", "keypoints"], out=str(tmp_path / "x.pkl"))
    assert scores[1.0]["bbox"][0] == 0
    assert json.loads((tmp_path / "x.pkl.json").read_text()) == []
    coco = str(Path(config).parent.parent)  # any file that is no result
    with pytest.raises(SlimdetError):
        coco_eval(coco, ann=coco, types=["bbox"])


def test_coco_eval_reads_both_files(
    small: Small, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_test(*texts(small, "faster"), width_mult=["0.5"], out=str(tmp_path / "x.pkl"))
    printed = []
    for name in ("x.pkl", "x.pkl.json"):
        capsys.readouterr()
        coco_eval(str(tmp_path / name), ann=str(pictures / "coco.json"), types=["bbox", "proposal", "keypoint"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].count("Average Precision") == 6 + 6 + 5


def test_tta_of_one_view_twice_is_that_view(small: Small, tmp_path: Path) -> None:
    config, weights = texts(small, "mask")
    twice = tmp_path / "twice.py"
    twice.write_text(Path(config).read_text().replace("img_scale=(96, 64)", "img_scale=[(96, 64), (96, 64)]"))
    for name, file in (("one", config), ("two", str(twice))):
        run_test(file, weights, width_mult=["0.5"], out=str(tmp_path / f"{name}.pkl"))
    one, two = (json.loads((tmp_path / f"{name}.pkl.json").read_text()) for name in ("one", "two"))
    # NMS over both views' proposals, at the original scale, leaves nearly the same ones.
    key = [(item["image_id"], item["category_id"], round(item["score"], 4)) for item in one]
    same = {(item["image_id"], item["category_id"], round(item["score"], 4)) for item in two}
    assert one
    assert sum(item in same for item in key) > 0.6 * len(key)


def test_show_writes_pictures(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_test(*texts(small, "faster"), width_mult=["0.25"], show=True)
    assert sorted(path.name for path in (tmp_path / "runs/show-1").iterdir()) == [
        "1_0.25.jpg",
        "2_0.25.jpg",
        "3_0.25.jpg",
    ]


def test_mistakes_are_found_before_anything_runs(small: Small, tmp_path: Path) -> None:
    config, weights = texts(small, "faster")
    with pytest.raises(ConfigError, match="nothing to do"):
        run_test(config, weights)
    with pytest.raises(ConfigError, match="pkl"):
        run_test(config, weights, out="x.json")
    with pytest.raises(ConfigError, match="no mask_head"):
        run_test(config, weights, eval=["segm"])
    with pytest.raises(ConfigError, match="gives detections"):
        run_test(config, weights, eval=["proposal_fast"])
    with pytest.raises(ConfigError, match="use one"):
        run_test(config, weights, eval=["bbox"], gpus=2, launcher="pytorch")
    with pytest.raises(ConfigError, match="torchrun"):
        run_test(config, weights, eval=["bbox"], launcher="pytorch")
    fewer = tmp_path / "fewer.py"
    fewer.write_text(Path(config).read_text().replace("num_classes=4", "num_classes=3"))
    with pytest.raises(ConfigError, match="3 categories"):
        run_test(str(fewer), weights, eval=["bbox"])


def test_widths() -> None:
    assert parse_widths(["all"]) == (0.25, 0.5, 0.75, 1.0)
    assert parse_widths(["0.5", "0.25"]) == (0.5, 0.25)
    for wrong in (["0.6"], ["half"], ["0.5,0.5"], [","]):
        with pytest.raises(WidthError):
            parse_widths(wrong)


def test_the_door_says_what_is_wrong_in_one_line() -> None:
    command = [sys.executable, str(TOOLS / "test.py"), "absent.py", "absent.pth", "--eval", "bbox"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.strip() == "test.py: config absent.py cannot be read: No such file or directory"
