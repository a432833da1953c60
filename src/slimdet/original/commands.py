"""What the original's commands do; tools/*.py are their doors."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from slimdet.core.slimmable import parse_width
from slimdet.errors import ConfigError, SlimdetError, WidthError
from slimdet.files import new_run_dir
from slimdet.original.configs.config import read_config
from slimdet.original.data.dataset import PictureSet, read_annotations
from slimdet.original.detector.detector import WIDTHS
from slimdet.original.launch import find_place
from slimdet.original.testing import results as forms
from slimdet.original.testing.recall import average_recall, objects
from slimdet.original.testing.run import Job, Results, number_of_classes, read_split, run_everywhere
from slimdet.original.testing.scores import KINDS, score

EVALUATIONS = (*KINDS, "proposal_fast")


class Parser(ArgumentParser):
    """A parser that answers a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(parser: ArgumentParser, command: Callable[..., Any]) -> None:
    """Call `command` with the parsed flags and leave: 0 for success, 2 and one line for a user's mistake."""
    flags = vars(parser.parse_args())
    try:
        command(**flags)
    except (SlimdetError, OSError) as error:
        reason = " ".join(str(error).split())
        sys.exit(print(f"{parser.prog}: {reason}", file=sys.stderr) or 2)
    except KeyboardInterrupt:
        sys.exit(130)


def parse_widths(given: Sequence[str]) -> tuple[float, ...]:
    """Widths from "0.5", "0.25,0.5" or "all", each one of the original's four.

    Raises:
        WidthError: another width, or one given twice.
    """
    words = [word for text in given for word in text.split(",") if word]
    widths = WIDTHS if words == ["all"] else tuple(parse_width(word) for word in words)
    for width in widths:
        if width not in WIDTHS:
            known = ", ".join(map(str, WIDTHS))
            raise WidthError(f"width {width} is not one of {known}: the checkpoint has norms for these alone")
    if not widths or len(set(widths)) != len(widths):
        raise WidthError(f"--width_mult {' '.join(given)} gives no width, or one twice; give each once")
    return widths


def run_test(
    config: str,
    checkpoint: str,
    *,
    width_mult: Sequence[str] = ("1.0",),
    eval: Sequence[str] = (),
    out: str | None = None,
    show: bool = False,
    gpus: int = 1,
    proc_per_gpu: int = 1,
    launcher: str = "none",
    local_rank: int | None = None,
    lenient: bool = False,
) -> dict[float, dict[str, tuple[float, ...]]]:
    """Run a detector over the config's data.test; print, and return, {width: {evaluation: COCO's numbers}}.

    Raises:
        SlimdetError: whatever the user got wrong, in one line.
    """
    widths = parse_widths(width_mult)
    if not (eval or out or show):
        raise ConfigError("nothing to do with the results; give at least one of --eval, --out and --show")
    if out is not None and Path(out).suffix not in (".pkl", ".pickle"):
        raise ConfigError(f"--out {out} must end in .pkl or .pickle")
    if gpus < 1 or proc_per_gpu < 1:
        raise ConfigError(f"--gpus {gpus} and --proc_per_gpu {proc_per_gpu} must be at least 1")
    processes = gpus * proc_per_gpu
    if launcher != "none" and processes > 1:
        raise ConfigError(f"--gpus and --proc_per_gpu start processes, and so does --launcher {launcher}; use one")
    place = find_place(launcher, local_rank)
    settings = read_config(config, warn=_warn if place.rank == 0 else lambda message: None)
    pictures = read_split(settings)  # and its mistakes are found before anything is computed
    _check_evaluations(eval, settings.model)
    if gpus > 1 and torch.cuda.device_count() < gpus:
        _warn(f"warning: --gpus {gpus}, but there are {torch.cuda.device_count()}; {processes} processes share what is")
    found = run_everywhere(Job(config, checkpoint, widths, lenient), place if launcher != "none" else None, processes)
    if found is None:
        return {}
    scores: dict[float, dict[str, tuple[float, ...]]] = {}
    for width, results in found.items():
        coco_results = forms.to_coco(results, pictures.image_ids, _categories(settings, pictures))
        if out is not None:
            path = Path(out) if len(widths) == 1 else Path(out).with_stem(f"{Path(out).stem}_{width}")
            forms.save(path, results, coco_results)
            _warn(f"width {width}: results in {path} and {path}.json")
        scores[width] = {}
        for kind in eval:
            print(f"width {width}, {kind}:")
            scores[width][kind] = _evaluate(kind, pictures.coco, pictures.image_ids, results, coco_results)
        sys.stdout.flush()
    if show:
        _show(found, pictures)
    return scores


def _check_evaluations(kinds: Sequence[str], model: Any) -> None:
    if "segm" in kinds and model.mask_head is None:
        raise ConfigError(f"--eval segm needs masks, and this {model.type} has no mask_head; use --eval bbox")
    if "proposal_fast" in kinds and model.type != "RPN":
        raise ConfigError(f"--eval proposal_fast compares proposals, and a {model.type} gives detections; use bbox")
    if "keypoints" in kinds:
        _warn(f"warning: --eval keypoints: a {model.type} finds no keypoints, so there is nothing to count")


def _categories(settings: Any, pictures: PictureSet) -> Sequence[int]:
    return pictures.category_ids if number_of_classes(settings) else (1,)


def _evaluate(
    kind: str, coco: dict[str, Any], image_ids: Sequence[int], results: Sequence[Any], coco_results: list[dict]
) -> tuple[float, ...]:
    if kind != "proposal_fast":
        found = score(_with_category(coco, coco_results), coco_results, kind)
        print("\n".join(found.lines))
        return found.values
    counts = (100, 300, 1000)
    recalls = average_recall(objects(coco, image_ids), forms.proposals_of(results, image_ids), counts)
    _print_recalls(counts, recalls)
    return recalls


def _with_category(coco: dict[str, Any], coco_results: list[dict]) -> dict[str, Any]:
    """Annotations that know category 1, which proposals are given, also where their own categories have other ids."""
    if all(category["id"] != 1 for category in coco["categories"]) and any(
        result.get("category_id") == 1 for result in coco_results
    ):
        return {**coco, "categories": [*coco["categories"], {"id": 1, "name": "proposal"}]}
    return coco


def _print_recalls(counts: Sequence[int], recalls: Sequence[float]) -> None:
    for count, recall in zip(counts, recalls, strict=True):
        print(f" AR@{count:<5} = {recall:.6f}")


def coco_eval(result: str, *, ann: str, types: Sequence[str], max_dets: Sequence[int] = (100, 300, 1000)) -> None:
    """Evaluate a result file (.pkl as tools/test.py writes it, or COCO JSON) against annotations; print the numbers.

    Raises:
        DataError: one of the files is malformed, or they do not belong together.
    """
    coco = read_annotations(ann)
    image_ids = list(dict.fromkeys(image["id"] for image in coco["images"]))
    results, coco_results = forms.load(Path(result), image_ids, [category["id"] for category in coco["categories"]])
    for given in types:
        kind = "keypoints" if given == "keypoint" else given  # the original's two commands differed in the word
        print(f"{kind}:")
        if kind == "proposal_fast":
            proposals = forms.proposals_of(results or coco_results, image_ids)
            _print_recalls(max_dets, average_recall(objects(coco, image_ids), proposals, max_dets))
        else:
            _evaluate(kind, coco, image_ids, results, coco_results)


def _show(found: Results, pictures: PictureSet) -> None:
    """Draw the results of every image and width into a new folder; there may be no screen."""
    from slimdet.images.drawing import draw
    from slimdet.original.data.pipeline import read_bgr

    folder = new_run_dir("show")
    for width, results in found.items():
        for picture, result in zip(pictures.pictures, results, strict=True):
            by_class = (
                result[0] if isinstance(result, tuple) else [result] if isinstance(result, np.ndarray) else result
            )
            names = [pictures.classes[k] if len(by_class) > 1 else "" for k, rows in enumerate(by_class) for _ in rows]
            rows = np.concatenate(by_class)
            best = np.where(rows[:, 4] >= 0.3)[0]
            boxes = rows[best, :4] + [0, 0, 1, 1]
            image = np.ascontiguousarray(read_bgr(picture.path)[..., ::-1])
            drawn = draw(image, boxes, [names[i] for i in best], rows[best, 4].tolist(), classes=pictures.classes)
            drawn.save(folder / f"{picture.path.stem}_{width}.jpg")
    _warn(f"pictures in {folder}")


def _warn(message: str) -> None:
    print(message, file=sys.stderr)
