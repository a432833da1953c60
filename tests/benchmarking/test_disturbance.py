"""What took time away is read from the system's counters; what it does not tell stays unknown."""

from dataclasses import replace
from pathlib import Path

import pytest

from slimdet.benchmarking.disturbance import Counters, between, counters

QUIET = Counters(0.0, 0.0, 100.0, 1000.0, 0, 50.0)


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("group", "file", "text"),
    [
        ("0::/", "cpu.stat", "usage_usec 9\nnr_throttled 3\nthrottled_usec 12000\n"),
        ("0::/some/job", "some/job/cpu.stat", "throttled_usec 12000\n"),
        ("3:cpuset:/\n1:cpu:/\n0::/", "cpu/cpu.stat", "nr_periods 4\nthrottled_time 12000000\n"),
        ("4:cpu,cpuacct:/docker/1f", "cpu,cpuacct/cpu.stat", "throttled_time 12000000\n"),  # the host's path
    ],
)
def test_both_versions_of_control_groups(tmp_path: Path, group: str, file: str, text: str) -> None:
    write(tmp_path, "proc/self/cgroup", f"{group}\n")
    write(tmp_path, f"sys/fs/cgroup/{file}", text)
    assert counters(tmp_path).quota_ms == 12


def test_cores_and_heat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    write(tmp_path, "proc/stat", "cpu  10 1 2 70 5 1 1 10 3 0\ncpu0 5 1 1 35 3 1 0 5 3 0\n")  # the guest's are in user
    for core, kind, count in ((0, "core", 4), (0, "package", 2), (1, "core", 0)):
        write(tmp_path, f"sys/devices/system/cpu/cpu{core}/thermal_throttle/{kind}_throttle_count", f"{count}\n")
    found = counters(tmp_path)
    assert (found.steal_ms, found.busy_ms, found.all_ms) == (100, 150, 1000)
    assert found.heat == 6


def test_where_nothing_is_told_it_is_unknown(tmp_path: Path) -> None:
    found = between(counters(tmp_path), counters(tmp_path))
    assert (found.throttled, found.watched) == ("unknown", "")
    assert (found.quota_ms, found.steal_percent, found.heat, found.others_percent) == (None,) * 4


@pytest.mark.parametrize(
    ("after", "throttled"),
    [
        (replace(QUIET, all_ms=2000.0), "no"),
        (replace(QUIET, all_ms=2000.0, steal_ms=8.0), "no"),  # less than 1 %
        (replace(QUIET, all_ms=2000.0, steal_ms=30.0), "yes"),
        (replace(QUIET, all_ms=2000.0, quota_ms=0.5), "yes"),
        (replace(QUIET, all_ms=2000.0, heat=1), "yes"),
    ],
)
def test_throttled(after: Counters, throttled: str) -> None:
    found = between(QUIET, after)
    assert (found.throttled, found.watched) == (throttled, "quota, steal, heat")


def test_what_others_worked_is_without_ones_own() -> None:
    after = replace(QUIET, all_ms=3000.0, busy_ms=1100.0, own_ms=450.0, heat=None)
    found = between(replace(QUIET, heat=None), after)
    assert found.others_percent == 30  # 1000 ms, of which 400 are one's own, of 2000
    assert (found.throttled, found.watched) == ("no", "quota, steal")


def test_this_machine_is_read_without_error() -> None:
    assert between(counters(), counters()).throttled in ("yes", "no", "unknown")
