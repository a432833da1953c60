"""The example for Ray Serve on a local Ray of two nodes: a replica on each, and one that goes away with its node."""

import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ports import free_port
from slimdet.assets import PHOTOGRAPHS

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_serve"
LOOPBACK = "127.0.0.2"  # Ray puts the machine's own address in the place of 127.0.0.1

pytestmark = pytest.mark.slow


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any, Any]]:
    """The address of two replicas on two nodes of one CPU each, the second node and the cluster."""
    pytest.importorskip("ray.serve", reason="needs Ray Serve")
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(EXAMPLE)
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "node_ip_address": LOOPBACK}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    second = cluster.add_node(**node)
    ray.init(address=cluster.address, _node_ip_address=LOOPBACK, log_to_driver=False)
    from app import Detector  # pyright: ignore

    port = free_port()
    serve.start(http_options={"host": LOOPBACK, "port": port, "location": "HeadOnly"})
    spread = {"num_replicas": 2, "max_replicas_per_node": 1, "ray_actor_options": {"num_cpus": 1}}
    serve.run(Detector.options(**spread).bind("bundled", 5000.0))
    yield f"http://{LOOPBACK}:{port}", second, cluster
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


def detect(address: str) -> dict[str, Any]:
    body = (PHOTOGRAPHS / "tabby.jpg").read_bytes()
    request = urllib.request.Request(f"{address}/v1/detect", body, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def nodes_of_replicas(cluster: Any) -> set[int]:
    """The raylets, one a node, that a replica is a child of."""
    raylets = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes.get("raylet", [])}
    listing = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 1) for line in listing.splitlines()[1:]]
    return {int(parent) for parent, args in rows if args.startswith("ray::ServeReplica")} & raylets


def test_a_replica_on_each_node_and_one_that_is_lost(served: tuple[str, Any, Any]) -> None:
    address, second, cluster = served
    assert len(nodes_of_replicas(cluster)) == 2
    assert {one["name"] for one in detect(address)["detections"]} == {"cat"}

    answered, failed, stop = [], [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answered.append((time.monotonic(), detect(address)["detections"][0]["name"]))
            except (OSError, urllib.error.HTTPError) as error:
                failed.append(error)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    time.sleep(3)
    cluster.remove_node(second)
    lost = time.monotonic()
    time.sleep(20)
    stop.set()
    for client in clients:
        client.join()
    assert {name for _, name in answered} == {"cat"}
    assert sum(moment < lost for moment, _ in answered) > 3
    assert sum(moment > lost + 5 for moment, _ in answered) > 10  # the other replica serves on
    assert len(nodes_of_replicas(cluster)) == 1
    assert len(failed) <= 4  # what the lost one held, and what was sent to it until that was known
