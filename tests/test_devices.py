"""What is set up with a device."""

import os
import platform
import subprocess
import sys

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone gives large blocks back")
def test_large_blocks_that_were_freed_are_kept() -> None:
    code = """
import resource
from slimdet.devices import keep_freed_memory
def faults(size=64 * 2**20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(size)
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
lost = faults()
keep_freed_memory()
faults()
print(lost, faults())
"""
    words = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    lost, kept = map(int, words)
    assert lost > 100 > kept


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"--device abacus is not to be had here \(.+\); use cpu"):
        choose_device("abacus")
