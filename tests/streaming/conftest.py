"""Small clips of moving rectangles, made by PyAV."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av: Any = pytest.importorskip("av", reason="needs the extra 'video'")

CLOCK = Fraction(1, 1000)


@pytest.fixture(scope="session")
def write_clip() -> Callable[..., Path]:
    """Write frames of 96 x 64 pixels, each of one brightness, at the given milliseconds."""

    def write(file: Path, times_ms: Sequence[int], size: tuple[int, int] = (96, 64)) -> Path:
        with av.open(str(file), "w") as container:
            stream: Any = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = CLOCK
            for number, time in enumerate(times_ms):
                pixels = np.full((size[1], size[0], 3), 40 + 5 * number % 200, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = time, CLOCK
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return file

    return write


UNEVEN = (0, 40, 80, 400, 440, 1000, 1040, 1300)  # milliseconds


@pytest.fixture(scope="session")
def uneven(write_clip: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose frames are at `UNEVEN`."""
    return write_clip(tmp_path_factory.mktemp("clips") / "uneven.mkv", UNEVEN)
