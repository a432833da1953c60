"""Run a detector of the original over a data set, at several widths and in several processes."""

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, cast

import torch
from torch import distributed

from slimdet.core.slimmable import Slimmable, slim
from slimdet.errors import ConfigError
from slimdet.original.configs.config import Config, image_scales, read_config
from slimdet.original.data.dataset import PictureSet, check_classes, read_set
from slimdet.original.data.pipeline import View, read_bgr, views
from slimdet.original.detector import checkpoint
from slimdet.original.detector.boxes import from_inclusive
from slimdet.original.detector.detector import WIDTHS, OriginalDetector, architecture_of, build
from slimdet.original.launch import join, stop
from slimdet.original.testing.augmented_test import detect
from slimdet.original.testing.prepare import ready
from slimdet.original.testing.results import ImageResult, image_result
from slimdet.training.processes.distributed import Place

Results = dict[float, list[ImageResult]]


@dataclass(frozen=True)
class Job:
    """What is to be run; plain data, so that it can be sent to other processes.

    Attributes:
        widths: each of the model's.
        lenient: take a checkpoint that does not fit wholly.
        threads: torch's threads for each process; 0 leaves them alone.
    """

    config: str
    checkpoint: str
    widths: tuple[float, ...]
    lenient: bool = False
    threads: int = 0


def load_model(config: Config, path: str | Path, lenient: bool = False) -> Slimmable:
    """The model of a config with a checkpoint's weights, in eval mode."""
    model = slim(build(architecture_of(config)), WIDTHS, "backbone").eval()
    checkpoint.load(model, path, lenient, warn=_log, advice="; --lenient loads what fits")
    return model


def number_of_classes(config: Config) -> int:
    """K, without background; 0 for a region proposal network."""
    return config.model.bbox_head.num_classes - 1 if config.model.bbox_head else 0


def read_split(config: Config, split: str = "test") -> PictureSet:
    """The images of `data.test` (or `train` or `val`), checked against the detector.

    Raises:
        ConfigError: there are none, their categories are not the detector's, or proposals are missing.
        DataError: they are malformed.
    """
    dataset = config.data[split]
    if dataset is None:
        raise ConfigError(f"the config has no data.{split}; add data = dict(..., {split}=dict(...))")
    if config.model.type == "FastRCNN" and dataset.proposal_file is None:
        raise ConfigError(f"a FastRCNN needs data.{split}.proposal_file; tools/test.py RPN_CONFIG ... --out makes one")
    pictures = read_set(dataset)
    check_classes(pictures, number_of_classes(config), dataset.ann_file)
    return pictures


def run(job: Job, place: Place) -> Results:
    """Run this process's share of the images: every `place.world`-th, from `place.rank` on."""
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.backends.cudnn.allow_tf32 = False  # the original's digits
    config = read_config(job.config, warn=lambda message: None)
    pictures = read_split(config)
    model = load_model(config, job.checkpoint, job.lenient)
    return run_model(model, job.widths, config, config.data.test, pictures, place)


def run_model(
    model: Slimmable,
    widths: Sequence[float],
    config: Config,
    dataset: Config,
    pictures: PictureSet,
    place: Place,
) -> Results:
    """Run this process's share of the images of a config's `data.test` or `data.val`."""
    share = range(place.rank, len(pictures.pictures), place.world)
    results = {}
    for width in widths:
        detector = ready(model, width, place.device)
        found = enumerate(_detect(detector, config, dataset, pictures, share), 1)
        results[width] = []
        for done, result in found:
            results[width].append(result)
            if place.rank == 0 and (done % 50 == 0 or done == len(share)):
                _log(
                    f"width {width}: {min(done * place.world, len(pictures.pictures))}/{len(pictures.pictures)} images"
                )
    return results


@torch.no_grad()
def _detect(
    detector: OriginalDetector, config: Config, dataset: Config, pictures: PictureSet, share: Sequence[int]
) -> Iterator[ImageResult]:
    classes = number_of_classes(config)
    device = next(detector.parameters()).device
    scales, flip = image_scales(dataset.img_scale), dataset.flip_ratio > 0

    def prepare(index: int) -> tuple[int, list[View], tuple[int, int]]:
        picture = pictures.pictures[index]
        image = read_bgr(picture.path)
        seen = views(image, scales, flip, dataset.img_norm_cfg, dataset.size_divisor)
        return index, seen, picture.size or (image.shape[0], image.shape[1])

    for index, seen, size in ahead(prepare, share, config.data.workers_per_gpu):
        seen = [replace(view, batch=view.batch.to(device, memory_format=torch.channels_last)) for view in seen]
        proposals = None
        if detector.rpn is None and pictures.proposals is not None:
            proposals = from_inclusive(torch.from_numpy(pictures.proposals[index][:, :4])).to(device)
        yield image_result(detect(detector, seen, proposals), classes, size, detector.mask_threshold)


def ahead(prepare: Any, items: Iterable[int], workers: int) -> Iterator[Any]:
    """prepare(item) for each item in order, some of them ahead of time by `workers` threads."""
    if workers <= 0:
        yield from map(prepare, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Any]] = deque()
        for item in items:
            waiting.append(pool.submit(prepare, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def run_everywhere(job: Job, place: Place | None, processes: int) -> Results | None:
    """Run all images in as many processes as asked; the results in the order of the images.

    Args:
        place: this process among those that a launcher started; None where nobody has.
        processes: how many to start then.

    Returns:
        The results; None in every process but the first.
    """
    if place is not None:
        join(place)
        shares = place.gather(_or_error(job, place))
        distributed.destroy_process_group()
        for share in shares:
            if isinstance(share, Exception):
                raise share
        return None if place.rank else interleave(cast(list[Results], shares))
    if processes == 1:
        return run(job, Place())
    job = replace(job, threads=max(1, (os.cpu_count() or 1) // processes))
    places = [Place(rank, processes, rank) for rank in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            return interleave(list(pool.map(run, [job] * processes, places)))
        except KeyboardInterrupt:  # of this process alone: they would work on, and be waited for
            stop(active_children())
            raise


def _or_error(job: Job, place: Place) -> Results | Exception:
    # A process that fails must still answer, or the others would wait for it for ever.
    try:
        return run(job, place)
    except Exception as error:
        return error


def interleave(shares: Sequence[Results]) -> Results:
    merged: Results = {}
    for width in shares[0]:
        parts = [share[width] for share in shares]
        merged[width] = [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]
    return merged


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
