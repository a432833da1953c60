"""The verb `job`."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

from slimdet.cli import views
from slimdet.cli.command import Outcome
from slimdet.cli.flags import (
    AnyPrecision,
    Count,
    Engine,
    EngineDevice,
    Fraction,
    Model,
    Moment,
    Proposals,
    Side,
    Source,
    Width,
)
from slimdet.jobs.parts import Tally
from slimdet.jobs.settings import JobSettings as S


def job(
    *sources: Annotated[Source, "folders, images, glob patterns, parquet lists with a column 'path'"],
    model: Model,
    deadline: Annotated[Moment | None, "when all is to be done, as 18:00: chooses the points"] = S.deadline,
    width: Annotated[Width, "how wide to run without a deadline"] = S.width,
    conf: Annotated[Fraction, "least score of a detection"] = S.conf,
    engine: Engine = S.engine,
    imgsz: Side = S.imgsz,
    proposals: Proposals = S.proposals,
    precision: AnyPrecision = S.precision,
    device: EngineDevice = S.device,
    threads: Annotated[Count | None, "of one worker, which takes as many cores"] = S.threads,
    batch: Annotated[Count, "images at a time; those that become one size run together"] = S.batch,
    workers: Annotated[Count | None, "processes (default: as many as the Ray cluster has room for)"] = S.workers,
    block: Annotated[Count, "images of one part file"] = S.block,
    out: Annotated[Path | None, "folder; with that of a job that was stopped it goes on (default runs/job-N)"] = None,
) -> Outcome:
    """Detect objects in very many images, on all cores or a Ray cluster; may be stopped and resumed.

    Example:
        slimdet job photos/ --model bundled --deadline 18:00 --out found
        slimdet job photos.parquet --model bundled --width 0.5 --out found
    """
    from slimdet.jobs.detection import detect

    how = S(
        *(engine, device, threads, imgsz, proposals, precision, width, conf, batch),
        deadline=deadline,
        workers=workers,
        block=block,
    )
    done = detect(sources, model, how, out, _told)
    late = (
        f"the deadline was missed by {datetime.now().astimezone() - deadline}" if deadline and not done.in_time else ""
    )
    return Outcome(done, views.job(done), unkept=late)


def _told(tally: Tally, images: int) -> None:
    broken = f", {tally.broken} could not be read" if tally.broken else ""
    print(f"{len(tally.files)} of {images} images{broken}", file=sys.stderr)
