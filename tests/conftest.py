"""What every test shares: one thread, a fixed seed, and the optional folder of real data."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from slimdet.bundle import manifest

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights beside the checkout; tests that need it skip elsewhere."""
    folder = Path(os.environ.get("SLIMDET_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the real data in {folder} (set SLIMDET_SHARED)")
    return folder


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The bundled model in a folder of its own, which a test may change."""
    return Path(shutil.copytree(manifest.bundled(), tmp_path / "exported"))
