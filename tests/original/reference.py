"""The original's own numbers: those in tests/assets/original, and all of them where the shared folder has them."""

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHIPPED = Path(__file__).parents[1] / "assets" / "original"


class Reference:
    """Files by their names, from what ships with the tests or else from the whole set.

    Args:
        whole: the folder of the whole set; it skips the test that asks for it where there is none.
    """

    images = SHIPPED / "images"
    annotations = SHIPPED / "tiny_coco.json"

    def __init__(self, whole: Callable[[], Path]) -> None:
        self.whole = whole

    def json(self, name: str) -> Any:
        """All JSON files ship, compressed."""
        return json.loads(lzma.decompress((SHIPPED / f"{name}.xz").read_bytes()))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        file = SHIPPED / name
        if not file.exists():
            file = self.whole() / "reference" / name
        if not file.exists():
            pytest.skip(f"needs {file}, which does not ship with the tests")
        return dict(np.load(file))

    def run(self, kind: str, image: str, width: float) -> dict[str, np.ndarray]:
        """A test run of the original at 512x320."""
        return self.arrays(f"{kind}_{image}_512x320_w{int(100 * width):03d}.npz")
