"""The container example: what it names is there, and the dashboard asks for metrics that the server has."""

import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from slimdet.serving.metrics import Metrics

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "serving"


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    metrics = Metrics()
    metrics.answered("1.0", 0.5, {"queue": 0.001, "inference": 0.01, "total": 0.02}, True)
    metrics.ended(200)
    there = set(re.findall(r"^(slimdet_\w+)", metrics.text().decode(), re.M))
    panels = json.loads((EXAMPLE / "grafana" / "dashboard.json").read_text())["panels"]
    asked = {name for one in panels for target in one["targets"] for name in re.findall(r"slimdet_\w+", target["expr"])}
    assert len(panels) == 8
    assert asked <= there
    named = set(re.findall(r"`(slimdet_\w+)", (ROOT / "docs" / "serving.md").read_text()))
    assert {name for name in named if name not in there} <= {
        name for name in named if f"{name}_count" in there
    }  # of a histogram the family's name


def test_files_and_services_that_are_named_are_there() -> None:
    compose = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
    assert (EXAMPLE / compose["services"]["slimdet"]["build"]["context"]).resolve() == ROOT
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service.get("volumes", ()):
            assert (EXAMPLE / volume.split(":")[0]).is_file()
    scraped = yaml.safe_load((EXAMPLE / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]
    assert scraped["targets"] == ["slimdet:8000"]
    for line in (EXAMPLE / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line


def test_the_page_is_part_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "serving/page/*" in project["tool"]["setuptools"]["package-data"]["slimdet"]


@pytest.mark.parametrize(
    ("kept", "attained", "used", "wanted"),
    [
        (1.0, 1.0, 0.5, 2),
        (0.85, 1.0, 0.9, 3),  # narrowed too far
        (1.0, 0.97, 0.9, 3),  # late
        (1.0, 1.0, 0.1, 1),  # one is enough
    ],
)
def test_replicas_are_added_where_narrowing_costs_accuracy(
    kept: float, attained: float, used: float, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.serve", reason="needs Ray Serve")
    monkeypatch.syspath_prepend(ROOT / "examples" / "ray_serve")
    from app import replicas  # pyright: ignore

    told = {"kept": kept, "attained": attained, "used": used}
    metrics = {name: {"a": value, "b": value} for name, value in told.items()}
    assert replicas(SimpleNamespace(target_num_replicas=2, aggregated_metrics=metrics))[0] == wanted  # pyright: ignore
    assert replicas(SimpleNamespace(target_num_replicas=2, aggregated_metrics={}))[0] == 2  # pyright: ignore
