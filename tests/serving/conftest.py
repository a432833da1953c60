"""A server as a process of its own, on a free port of this machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

# Clients are cut sooner than in earnest, so that tests need not wait.
START = """
import slimdet.serving.requests as requests, slimdet.serving.server as server, sys
requests.BODY_S = server.HEAD_S = 1.0
from slimdet.cli.verbs import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """The process, and requests to it, each on a connection of its own."""

    def __init__(self, words: Sequence[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, "--port", "0", *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.said: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"is served at http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise AssertionError("".join(self.said))
        threading.Thread(target=self.said.extend, args=(self.process.stderr,), daemon=True).start()

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, given)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, b"", **headers)

    def detect(self, image: bytes, query: str = "", **headers: str) -> Reply:
        return self.request("POST", f"/v1/detect{query}", image, **{"content_type": "image/jpeg"} | headers)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def workers(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def serving(model: Path | str, *words: str, **environment: str) -> Iterator[Server]:
    """A server of this model."""
    server = Server(["--model", str(model), *words], environment)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
