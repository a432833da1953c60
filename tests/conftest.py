"""What every test shares: one thread, a fixed seed, Ctrl-C, and the optional folder of real data."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from scenes import make_scenes
from scenes_detector import small_settings
from slimdet.bundle import manifest
from slimdet.training.runs import train

torch.set_num_threads(1)
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # what is started in the background ignores it, and its children


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into the user's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights beside the checkout; tests that need it skip elsewhere."""
    folder = Path(os.environ.get("SLIMDET_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the real data in {folder} (set SLIMDET_SHARED)")
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATA.yaml of six pictures with the classes red and green."""
    return make_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of thirty steps; whoever changes it copies it."""
    settings = small_settings(scenes, epochs=10, lr=0.02, warmup=3, augment="none")
    return train(settings, out=tmp_path_factory.mktemp("runs") / "trained").run


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The bundled model in a folder of its own, which a test may change."""
    return Path(shutil.copytree(manifest.bundled(), tmp_path / "exported"))
