"""What the package says of itself: licences with their texts, one version, constraints that fit the requirements."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

import slimdet

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_licence_has_its_text_and_every_text_is_named() -> None:
    names = set(PROJECT["license"].split(" AND "))
    assert names - {"Apache-2.0"} == {file.stem for file in (ROOT / "LICENSES").iterdir()}
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert all(name in notice for name in names)
    for pattern in PROJECT["license-files"]:
        assert list(ROOT.glob(pattern)), pattern
    assert "Copyright 2016, Yahoo Inc." in (ROOT / "LICENSES" / "BSD-2-Clause.txt").read_text(encoding="utf-8")


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", slimdet.__version__)


def test_constraints_fit_every_requirement() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    asked = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    for requirement in map(Requirement, asked):
        if requirement.name != "slimdet":
            assert requirement.specifier.contains(pinned[requirement.name]), requirement
    assert not [name for name in pinned if name.startswith(("nvidia", "cuda", "triton"))]
