"""`slimdet serve` as a process: what it answers, whom it refuses, and that it loses nobody."""

import asyncio
import io
import json
import os
import shutil
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from runtime.mask_engine import mask_bundle
from runtime.test_budget import TABBY
from serving.conftest import Server, serving
from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle import card
from slimdet.bundle.ladder import Point, Rung
from slimdet.bundle.manifest import bundled
from slimdet.errors import ConfigError
from slimdet.images.masks import decode_runs
from slimdet.serving.requests import OPTIONS, TYPES
from slimdet.serving.server import _bound, serve
from slimdet.serving.settings import ServeSettings

# Far apart in time: one that seems slower than a better one, on a busy machine, would not be served.
POINTS = (Point(0.25, 96, 20, "fp32"), Point(0.5, 186, 50, "fp32"), Point(1.0, 186, 150, "fp32"))
CAT = TABBY.read_bytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers that serve the bundled model with a ladder."""
    path = Path(shutil.copytree(bundled(), tmp_path_factory.mktemp("served") / "animals"))
    weights = card.read(path).weights
    ladder = [Rung(one, {"AP": 0.1 + 0.1 * n}, 9, "val", weights[str(one.width)]) for n, one in enumerate(POINTS)]
    document = json.loads((path / "model.json").read_text())
    document["ladder"] = [rung.entry for rung in ladder]
    (path / "model.json").write_text(json.dumps(document))
    with serving(path, "--slo-ms", "20000", "--workers", "2") as one:
        yield one


def test_an_image_is_answered_with_what_was_found_and_how(server: Server) -> None:
    answer = server.detect(CAT).json
    (found,) = answer["detections"]
    assert found["name"] == "cat"
    assert answer["image"] == {"width": 512, "height": 326}
    assert answer["point"] == server.get("/v1/status").json["ladder"][-1]["point"]
    assert answer["in_time"]
    assert 0 < answer["timings"]["inference_ms"] < answer["timings"]["total_ms"]
    for kind in ("png", "webp", "bmp"):
        content = io.BytesIO()
        with Image.open(PHOTOGRAPHS / "tabby.jpg") as image:
            image.save(content, kind)
        other = server.detect(content.getvalue(), "?conf=0.9", content_type=f"image/{kind}").json
        assert [row["name"] for row in other["detections"]] == ["cat"]


def test_a_request_may_say_at_what(server: Server) -> None:
    assert server.detect(CAT, "?point=0").json["point"] == POINTS[0].entry
    answer = server.detect(CAT, "?width=0.5&imgsz=128").json
    assert (answer["point"]["width"], answer["point"]["imgsz"], answer["rung"]) == (0.5, 128, None)
    refused = server.detect(CAT, "?deadline_ms=1")
    assert refused.status == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert "not even the cheapest" in refused.json["error"]


def test_the_open_inference_protocol(server: Server) -> None:
    assert server.get("/v2").json["name"] == "slimdet"
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"ready": True}
    assert server.get("/v2/models/animals/versions/1/ready").json == {"name": "animals", "ready": True}
    assert [one["name"] for one in server.get("/v2/models/animals").json["outputs"]] == ["boxes", "labels", "scores"]
    assert server.get("/v2/models/other").status == 404
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 + len(CAT)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"point": 2, "conf": 0.9}}).encode()
    body = head + struct.pack("<I", len(CAT)) + CAT
    reply = server.request("POST", "/v2/models/animals/infer", body, inference_header_content_length=str(len(head)))
    assert reply.status == 200
    outputs = {one["name"]: one["data"] for one in reply.json["outputs"]}
    assert outputs["labels"] == [2]
    assert json.loads(reply.json["parameters"]["point"])["width"] == 1.0


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is so large and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "query", "kind", "status", "words"),
    [
        (CAT, "?widht=1", "image/jpeg", 400, "did you mean width"),
        (CAT, "?width=0.3", "image/jpeg", 400, "width 0.3 is not one of"),
        (CAT, "", "image/tiff", 415, "image/tiff"),
        (b"no image", "", "image/jpeg", 422, "8 bytes"),
        (CAT[:3000], "", "image/jpeg", 422, "3000 bytes"),
        (bomb(20_000, 20_000), "", "image/png", 422, "megapixels"),
        (bytes(20 * 2**20 + 1), "", "image/jpeg", 413, "20 MiB"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    server: Server, image: bytes, query: str, kind: str, status: int, words: str
) -> None:
    reply = server.detect(image, query, content_type=kind)
    assert reply.status == status
    assert list(reply.json) == ["error"]
    assert words in reply.json["error"]
    assert "\n" not in reply.json["error"]


def test_the_description_tells_every_address_and_option(server: Server) -> None:
    document = server.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    for path, methods in document["paths"].items():
        for method in methods:
            assert server.request(method.upper(), path, b"").status in (200, 400, 415), path
    detect = document["paths"]["/v1/detect"]["post"]
    schemas = {one["name"]: one["schema"] for one in detect["parameters"]}
    assert tuple(schemas) == OPTIONS
    assert list(detect["requestBody"]["content"]) == list(TYPES)
    assert schemas["width"]["enum"] == [0.25, 0.5, 0.75, 1.0]
    assert schemas["point"]["oneOf"][1]["maximum"] == len(POINTS) - 1
    for imgsz, status in ((schemas["imgsz"]["maximum"], 200), (schemas["imgsz"]["maximum"] + 1, 400)):
        assert server.detect(CAT, f"?imgsz={imgsz}").status == status


def test_other_addresses_and_methods(server: Server) -> None:
    assert server.get("/nothing").status == 404
    assert server.get("/v1/detect").status == 405
    assert "error" in server.get("/v1/detect").json


def test_answers_do_not_wait_for_acknowledgements() -> None:
    async def accepted() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(accept, sock=_bound("127.0.0.1", 0)) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            found = await seen
            writer.close()
        return found

    assert asyncio.run(accepted())


@pytest.mark.skipif(sys.platform != "linux", reason="memory as Linux tells it")
def test_what_was_answered_is_not_kept(server: Server) -> None:
    def megabytes() -> int:
        lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) // 1024

    heavy = CAT + bytes(4 * 2**20)  # what comes behind the picture is not looked at
    for _ in range(5):
        server.detect(heavy, "?point=0")
    before = megabytes()
    for _ in range(25):
        assert server.detect(heavy, "?point=0").status == 200
    assert megabytes() - before < 40  # all together have 100


def test_a_client_that_dawdles_is_cut(server: Server) -> None:
    head = b"POST /v1/detect HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 100\r\n"
    for sent, status in ((head + b"\r\nabc", b"HTTP/1.1 408 "), (head, b"")):
        begin = time.monotonic()
        with server.connect() as connection:
            connection.sendall(sent)
            assert connection.recv(13) == status
        assert time.monotonic() - begin < 10
    assert server.detect(CAT).status == 200


def test_counters_count(server: Server) -> None:
    before = server.get("/metrics").body.decode()
    server.detect(CAT, "?point=0")
    text = server.get("/metrics").body.decode()

    def value(metrics: str, name: str) -> float:
        return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name))

    for name in ('slimdet_requests_total{code="200"}', "slimdet_request_seconds_count", "slimdet_served_ap_count"):
        assert value(text, name) == value(before, name) + 1
    assert value(text, 'slimdet_deadlines_total{outcome="met"}') >= 1
    assert 'slimdet_request_seconds_bucket{le="0.002"}' in text


def test_a_worker_that_is_killed_is_replaced_and_its_image_goes_to_the_other(server: Server) -> None:
    first, statuses = server.workers(), []
    senders = [threading.Thread(target=lambda: statuses.append(server.detect(CAT).status)) for _ in range(6)]
    for sender in senders:
        sender.start()
    os.kill(first[0], signal.SIGKILL)
    for sender in senders:
        sender.join()
    assert statuses == [200] * 6
    end = time.monotonic() + 30
    while server.get("/v1/status").json["workers"] < 2 and time.monotonic() < end:
        time.sleep(0.1)
    now = server.workers()
    assert len(now) == 2
    assert first[1] in now
    assert first[0] not in now


def test_the_page_is_there_and_lets_nothing_in_from_elsewhere(server: Server) -> None:
    page = server.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert b"http://" not in page.body.replace(b"http://www.w3.org/", b"")
    assert server.get("/page.js").status == server.get("/page.css").status == 200


def test_masks_a_token_and_an_end_that_loses_nobody(tmp_path: Path) -> None:
    with serving(mask_bundle(tmp_path / "masks"), "--slo-ms", "20000", SLIMDET_TOKEN="secret") as server:
        assert server.detect(CAT).status == 401
        assert server.get("/metrics").status == 401
        assert server.get("/").status == server.get("/v2/health/ready").status == 200
        answer = server.detect(CAT, authorization="Bearer secret").json
        mask = answer["detections"][0]["segmentation"]
        assert mask["size"] == [326, 512]
        runs = decode_runs(mask["counts"])
        assert runs is not None
        assert sum(runs) == 326 * 512

        replies: list[int] = []
        head = "POST /v1/detect HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\nauthorization: Bearer secret\r\n"
        head += f"content-length: {len(CAT)}\r\n\r\n"

        def send() -> None:
            while True:
                try:
                    connection = server.connect()
                except ConnectionRefusedError:  # nobody accepted it
                    return
                with connection:
                    connection.sendall(head.encode() + CAT)
                    replies.append(int(connection.recv(12)[9:] or 0))

        senders = [threading.Thread(target=send) for _ in range(8)]
        for sender in senders:
            sender.start()
        time.sleep(0.5)
        assert server.stop() == 0
        for sender in senders:
            sender.join(10)
        assert len(replies) >= 8
        assert set(replies) <= {200, 503}


def test_what_cannot_be_served_is_told(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"slimdet: .*not a bundle"), serving(tmp_path):
        pass
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*take another --port"):
            serve("bundled", ServeSettings(port=port))


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for wrong, words in (
        ({"port": 70_000}, "--port 70000"),
        ({"slo_ms": 0}, "--slo-ms 0"),
        ({"workers": 0}, "--workers 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            ServeSettings(**wrong)  # pyright: ignore
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigError, match="no token in its first line"):
        ServeSettings(token_file=tmp_path / "token").token()
