"""The points and times of a video as a picture."""

import logging
from pathlib import Path

import numpy as np

from slimdet.files import atomic_write
from slimdet.streaming.outputs import read_lines

TIMELINE = "timeline.png"
MOST = 4000  # looks that are drawn; of a longer video every so many-th

logger = logging.getLogger("slimdet")


def draw_timeline(lines: Path, target_ms: float | None) -> Path | None:
    """`timeline.png` beside `frames.jsonl`: how long each look took, and at which width, size and stride it was.

    Returns:
        The picture; None without matplotlib, or where nothing was looked at.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("no %s: it needs matplotlib; get it with: pip install 'slimdet[plot]'", TIMELINE)
        return None
    rows = [
        (line["time_s"], line["took_ms"], line["point"]["width"], line["point"]["imgsz"], line["every"])
        for line in read_lines(lines)
        if line["looked"]
    ]
    if not rows:
        return None
    time_s, took_ms, width, imgsz, every = np.array(rows[:: max(1, len(rows) // MOST)], dtype=float).T
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 1))
    above.plot(time_s, took_ms, ".", markersize=3, color="#1e6ee6", label="a look")
    if target_ms is not None:
        above.axhline(target_ms, color="#e23737", linewidth=1, label=f"budget {target_ms:.1f} ms a frame")
    above.set_ylim(0, 1.1 * max(float(np.percentile(took_ms, 99)), target_ms or 0))
    above.set_ylabel("milliseconds")
    above.legend(loc="upper right")
    middle.step(time_s, width, where="post", color="#007d46")
    middle.set_ylim(0, 1.05)
    middle.set_ylabel("width", color="#007d46")
    sizes = middle.twinx()
    sizes.step(time_s, imgsz, where="post", color="#be50dc", linewidth=1)
    sizes.set_ylim(0, 1.2 * imgsz.max())
    sizes.set_ylabel("shorter side, px", color="#be50dc")
    below.step(time_s, every, where="post", color="#784b1e")
    below.set_ylim(0, every.max() + 1)
    below.set_ylabel("frames a look")
    below.set_xlabel("seconds of the video")
    path = lines.with_name(TIMELINE)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
