"""The process that listens: HTTP by uvicorn, the queue, and the workers' keeper.

One process reads requests and holds the one queue, so that the slack at its head is that of all; workers only detect.
"""

import asyncio
import contextlib
import ctypes
import logging
import signal
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from slimdet.errors import ConfigError
from slimdet.serving.app import App
from slimdet.serving.metrics import Metrics
from slimdet.serving.pool import Pool
from slimdet.serving.settings import ServeSettings

HEAD_S = 10.0  # for a request's head
GREETING_S = 0.05  # for connections that are being made
GOODBYE_S = 0.3  # for clients to hear that the connection closes
FIRST_S = 2.0  # for the first request of a connection, once the server is ending
CONNECTIONS = 1000
BACKLOG = 512  # connections that nobody has accepted yet
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux
# In its BPF: load byte 13 of the TCP header, the flags; if SYN is set return 0 (drop), else 2**16 - 1 (pass).
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 2), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF))

logger = logging.getLogger("slimdet")


@dataclass(frozen=True)
class Served:
    """What was served: the address, and how many requests were answered."""

    url: str
    requests: int


def serve(model: str | Path, settings: ServeSettings | None = None) -> Served:
    """Serve a model until SIGTERM or Ctrl-C; requests that were accepted by then are answered.

    Args:
        model: a bundle's folder, or "bundled".
        settings: where and how.

    Raises:
        BundleError, ConfigError: the model cannot be served, the address is taken, or the token cannot be read.
    """
    settings = settings or ServeSettings()
    with _bound(settings.host, settings.port) as listening:
        return asyncio.run(_serve(str(model), settings, listening))


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # asyncio sends small pieces at once (TCP_NODELAY) only on sockets that name their protocol; else the body of an
        # answer waits 40 ms for the client to acknowledge its head.
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, listening.detach())
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}; take another --port") from error


async def _serve(model: str, settings: ServeSettings, listening: socket.socket) -> Served:
    token, metrics = settings.token(), Metrics()
    options = {name: getattr(settings, name) for name in ("engine", "device", "threads", "memory")} | {"model": model}
    pool = Pool(options, settings.workers, metrics)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        starting = asyncio.ensure_future(pool.start())
        await asyncio.wait([starting, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return Served("", 0)
        await starting
        app = App(pool, metrics, settings.conf, settings.slo_ms, token).asgi()
        server = _Server(app, listening)
        await server.startup([listening])
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        logger.info("%s is served at %s", model, url)
        await stop.wait()
        await server.shutdown([listening])
        return Served(url, server.server_state.total_requests)
    finally:
        await pool.close()


class _Server(uvicorn.Server):
    """uvicorn's, which loses nobody when it stops: signals are the caller's."""

    def __init__(self, app: Any, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=60,
        )
        super().__init__(config)
        config.load()
        self.lifespan = config.lifespan_class(config)
        self._listening = listening
        self._ticking: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ticking = asyncio.ensure_future(self.main_loop())  # keeps the date of the answers

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        _take_no_more(self._listening)
        await asyncio.sleep(GREETING_S)
        await self._accept_all()
        for server in self.servers:
            server.close()
        # Who keeps a connection open may be sending on it now: with the next answer it hears that this was the last.
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        await asyncio.sleep(GOODBYE_S)
        end = asyncio.get_running_loop().time() + FIRST_S
        while self._is_awaited() and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    def _is_awaited(self) -> bool:
        """Whether somebody has connected and not asked for anything yet."""
        return any(isinstance(one, _Protocol) and one.cycle is None for one in self.server_state.connections)

    async def _accept_all(self) -> None:
        """Accept the connections that the system has established by now; closing would break them off."""
        loop = asyncio.get_running_loop()
        self._listening.setblocking(False)
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        return _Protocol(self.config, self.server_state, self.lifespan.state)


def _take_no_more(listening: socket.socket) -> None:
    """Let the system drop who knocks from now on, so that nobody gets in between the last one accepted and the end.

    They knock again after a second, when nobody listens. Linux only, by a filter of packets: those that open a
    connection (SYN) are dropped, others pass, so that connections that are being made come about.
    """
    if sys.platform == "linux":
        program = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN)
        kept = ctypes.create_string_buffer(program)
        with contextlib.suppress(OSError):
            sock_fprog = struct.pack("HP", len(_NO_SYN), ctypes.addressof(kept))
            listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, sock_fprog)


class _Protocol(H11Protocol):
    """uvicorn's, which waits only so long for the head of a request."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and self._head is not None:
            self._head.cancel()
            self._head = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._head is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(HEAD_S, self._too_late)

    def _too_late(self) -> None:
        self._head = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
