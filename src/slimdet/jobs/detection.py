"""A job: all images of its sources, each once, on as many processes and machines as Ray has."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from slimdet.errors import ConfigError
from slimdet.files import atomic_write, new_run_dir
from slimdet.jobs.listing import Block, blocks, listed
from slimdet.jobs.parts import STARTED, Tally, tallied
from slimdet.jobs.settings import JobSettings
from slimdet.runtime.prediction import opened

JOB = "job.json"  # what must not change when a job is resumed


@dataclass
class Job:
    """What became of a job.

    Attributes:
        run: the folder with the parts.
        images: in the parts, broken ones too.
        broken: of these, how many could not be read; their lines in the parts say why.
        resumed: of these, how many were there before.
        points: share of the images at each point.
        mean_ap: of the points, over the images, 0..1; None where the bundle does not know it.
        workers: processes.
        seconds: from the first block to the last, the workers' start included.
        images_s: images a second in that time.
        in_time: whether it ended before the deadline; None without one.
    """

    run: Path
    images: int
    broken: int
    resumed: int
    points: dict[str, float]
    mean_ap: float | None
    workers: int
    seconds: float
    images_s: float
    in_time: bool | None


def detect(
    sources: Sequence[str],
    model: str | Path,
    settings: JobSettings | None = None,
    out: str | Path | None = None,
    on_part: Callable[[Tally, int], Any] = lambda tally, images: None,
) -> Job:
    """Detect objects in very many images with Ray Data; write a part file of JSON lines for each block of them.

    The Ray cluster is the one that is connected to, or that RAY_ADDRESS names, else this machine. Images, model and
    `out` must be at the same paths on all its machines.

    Called again with the same `out`, it goes on: images that are in a part are not looked at again. One job at a time
    writes to a folder.

    Args:
        sources: folders, files, glob patterns, and parquet lists with a column "path".
        model: a bundle's folder, or "bundled".
        settings: how; the default is `JobSettings()`.
        out: a folder: new, empty, or of the same job; the default is `runs/job-N`.
        on_part: called with what is done, and the number of all images, after each part.

    Raises:
        BundleError, ConfigError, WidthError, DataError: what was given cannot be used, or the deadline has passed.
        OSError: the disk is full.
    """
    settings = settings or JobSettings()
    deadline = settings.deadline
    if deadline is not None and deadline.timestamp() <= time.time():
        raise ConfigError(f"--deadline {deadline:%Y-%m-%d %H:%M} has passed; give a later one")
    files = listed(sources)
    model = model if model == "bundled" else Path(model).resolve()
    runtime = opened(model, settings)  # so that mistakes are told before anything starts
    if deadline is None:
        runtime.complete(settings.point)
    folder = _folder(out, {"weights": runtime.manifest.weights_sha256, "conf": settings.conf, "block": settings.block})
    tally = tallied(folder)
    resumed, total = len(tally.files), len(tally.files.union(files))
    for mark in folder.glob(f"{STARTED}*"):  # the worker's end there was the end of the whole job
        mark.unlink(missing_ok=True)
    began, workers = time.monotonic(), 0
    if total > resumed:
        with _cluster() as ray:
            workers = settings.workers or _room(ray, settings)
            todo = blocks(files, settings.block, workers, tally.files)
            for part in _parts(ray, todo, (model, settings, folder), min(workers, len(todo))):
                tally.add(folder / part)
                on_part(tally, total)
    seconds, images = time.monotonic() - began, len(tally.files)
    looked = tally.points.total()
    return Job(
        run=folder,
        images=images,
        broken=tally.broken,
        resumed=resumed,
        points={_named(point): count / looked for point, count in tally.points.most_common()},
        mean_ap=tally.ap / looked if looked and tally.known == looked else None,
        workers=workers,
        seconds=seconds,
        images_s=(images - resumed) / seconds,
        in_time=None if deadline is None else time.time() <= deadline.timestamp(),
    )


def _named(point: str) -> str:
    """A point as people read it, from the JSON that parts have of it."""
    return str(JobSettings(**json.loads(point)).point)


def _folder(out: str | Path | None, job: dict[str, Any]) -> Path:
    """The folder of a new job, or of this one when it was stopped."""
    described = None if out is None else Path(out) / JOB
    if described is None or not described.exists():
        folder = new_run_dir("job", out).resolve()
        with atomic_write(folder / JOB) as temporary:
            temporary.write_text(json.dumps(job) + "\n")
        return folder
    try:
        before = json.loads(described.read_text())
    except ValueError:
        before = None
    if before != job:
        other = [name for name, value in job.items() if not isinstance(before, dict) or before.get(name) != value]
        raise ConfigError(f"--out {out} has parts of a job with other {' and '.join(other)}; choose another folder")
    return described.parent.resolve()


# --- Ray


def _ray() -> Any:
    try:
        import_module("ray.data")
        return import_module("ray")
    except ImportError:
        raise ConfigError("jobs run on Ray, which is not installed; get it with: pip install 'slimdet[ray]'") from None


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected; what was connected here is left again."""
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _room(ray: Any, settings: JobSettings) -> int:
    """How many workers the cluster has room for."""
    kind, each = ("GPU", 1) if settings.device.startswith("cuda") else ("CPU", settings.threads or os.cpu_count() or 1)
    room = int(ray.cluster_resources().get(kind, 0)) // each
    if room < 1:
        raise ConfigError(
            f"this Ray cluster has no {each} {kind} for a worker; give fewer --threads or another --device"
        )
    return room


def _parts(ray: Any, todo: Sequence[Block], worker: tuple[Any, ...], workers: int) -> Iterator[str]:
    """Run the blocks; give the name of each part when it is written."""
    settings: JobSettings = worker[1]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    rows = [{"files": list(block.files), "rounds": block.rounds} for block in todo]
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _RayWorker,
        fn_constructor_args=worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=settings.threads or os.cpu_count(),
        num_gpus=1 if settings.device.startswith("cuda") else None,
    )
    for row in data.iter_rows():
        if row["failed"]:
            raise OSError(*json.loads(row["failed"]))
        yield row["part"]


class _RayWorker:
    """A worker as Ray Data calls it: with a batch of one block."""

    def __init__(self, *given: Any) -> None:
        from slimdet.jobs.worker import Worker  # numpy: the command line reads this file alone

        self._worker = Worker(*given)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        block = Block(tuple(map(str, batch["files"][0])), int(batch["rounds"][0]))
        failed = ""
        try:
            self._worker(block)
        except OSError as error:  # Ray would wrap it, and its number would be lost
            failed = json.dumps([error.errno, error.strerror, str(error.filename)])
        return {"part": [block.part], "failed": [failed]}
