"""A process that runs the detector, and the handle that the server has of it.

Over a socket come first a `Start`, which is answered by a `Ready` or a `Failed`, then one `Job` after the other,
each answered by a `Found` or a `Failed`. It ends when the other end is closed. Whatever an image does to a decoder, the
server lives on.
"""

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from slimdet.errors import ImageError, SlimdetError
from slimdet.messages import first_line

if TYPE_CHECKING:
    from slimdet.bundle.ladder import Point
    from slimdet.runtime.detector import Runtime


RUN = "from slimdet.serving.worker import main; main()"


@dataclass(frozen=True)
class Ready:
    """What is served.

    Attributes:
        name: of the model.
        engine: what runs it.
        classes: [K] names.
        widths: of the model, ascending.
        masks: whether detections may have masks.
        costs_ms: of each point where nothing else runs, cheapest first.
        ap: of the points of which it is known, 0..1.
        macs: multiply-adds, likewise.
    """

    name: str
    engine: str
    classes: Sequence[str]
    widths: Sequence[float]
    masks: bool
    costs_ms: "Mapping[Point, float]"
    ap: "Mapping[Point, float]"
    macs: "Mapping[Point, float]"


@dataclass(frozen=True)
class Start:
    """What a worker serves: the arguments of `Runtime`, and what another worker has found out already."""

    options: Mapping[str, Any]
    known: Ready | None = None


@dataclass(frozen=True)
class Job:
    """An image, and at what to detect: a rung, or a call's own options."""

    image: bytes = field(repr=False)
    conf: float
    rung: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        detections: JSON, as `Result.to_json` has it.
        size: (width, height) of the image.
        point: what ran, as JSON has it.
        read_ms, inference_ms: milliseconds of reading and detecting.
    """

    detections: str = field(repr=False)
    size: tuple[int, int]
    point: dict[str, Any]
    read_ms: float
    inference_ms: float


@dataclass(frozen=True)
class Failed:
    """What went wrong, in a sentence: with the "image", with what was "asked", or with "us"."""

    reason: str
    blame: str


class Worker:
    """A worker process as the server sees it: at most one job at a time.

    Attributes:
        job: what it was given and has not answered; None when it is free.
        is_ready: whether it has said so.
    """

    def __init__(self, start: Start) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-c", RUN, str(theirs.fileno())]
        # A session of its own: Ctrl-C is for the server, which lets its workers finish.
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()
        self._connection = Connection(ours.detach())
        self._connection.send(start)
        self.job: Any = None
        self.is_ready = False

    def fileno(self) -> int:
        """Readable when there is something to receive."""
        return self._connection.fileno()

    def send(self, job: Job) -> None:
        """Give it a job.

        Raises:
            OSError: it is gone.
        """
        self._connection.send(job)

    def receive(self) -> Ready | Found | Failed:
        """What it says.

        Raises:
            EOFError, OSError: it is gone.
        """
        return self._connection.recv()

    def close(self) -> None:
        """End it: at once if it does nothing, after its job otherwise."""
        self._connection.close()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()


def serve(connection: Connection) -> None:
    """Answer until the other end is closed."""
    start: Start = connection.recv()
    try:
        runtime, ready = _started(start)
    except SlimdetError as error:
        connection.send(Failed(str(error), "asked"))
        return
    points = list(ready.costs_ms)
    connection.send(ready)
    while True:
        connection.send(_answer(runtime, points, connection.recv()))


def _started(start: Start) -> "tuple[Runtime, Ready]":
    from slimdet.runtime.budget import accuracies, costs, multiply_adds
    from slimdet.runtime.detector import Runtime

    runtime = Runtime(**start.options)
    ms = costs(runtime) if start.known is None else start.known.costs_ms
    # An image of each rung, from its file: the first ones take longer than any that follows.
    results = [runtime(_small_jpeg(), point=point) for point in ms]
    if start.known is not None:
        return runtime, start.known
    name, engine, masks = runtime.manifest.name, runtime.engine.name, results[0].mask_cells is not None
    ap, macs = accuracies(runtime, ms), multiply_adds(runtime, ms)
    return runtime, Ready(name, engine, runtime.classes, runtime.widths, masks, ms, ap, macs)


def _small_jpeg() -> bytes:
    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "JPEG")
    return file.getvalue()


def _answer(runtime: "Runtime", points: "Sequence[Point]", job: Job) -> Found | Failed:
    options: dict[str, Any] = job.options if job.rung is None else {"point": points[job.rung]}
    try:
        result = runtime(job.image, conf=job.conf, **options)
        # One by one: all masks of a large image at once would take gigabytes.
        detections = ", ".join(one.to_json()[1:-1] for one in result)
    except ImageError as error:
        return Failed(str(error), "image")
    except SlimdetError as error:
        return Failed(str(error), "asked")
    except Exception as error:
        return Failed(f"{type(error).__name__}: {first_line(error)}", "us")
    speed = result.speed
    return Found(f"[{detections}]", result.image_size, result.point.entry, speed["read_ms"], speed["inference_ms"])


def main() -> None:
    """Serve over the socket that the command line names, until the server has no more use for this process."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        serve(Connection(int(sys.argv[1])))
