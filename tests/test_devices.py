"""What is set up with a device."""

import os

import pytest

from slimdet.devices import KEPT_KERNELS, choose_device
from slimdet.errors import ConfigError

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def test_the_cpu_keeps_kernels_for_many_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CAPACITY, raising=False)
    assert choose_device("cpu").type == "cpu"
    assert os.environ[CAPACITY] == str(KEPT_KERNELS)
    monkeypatch.setenv(CAPACITY, "7")  # whoever has set it knows why
    choose_device("cpu")
    assert os.environ[CAPACITY] == "7"


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"--device abacus is not to be had here \(.+\); use cpu"):
        choose_device("abacus")
