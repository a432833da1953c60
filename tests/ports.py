"""Ports for processes that tests start."""

import random
import socket

PORTS = range(
    20_000, 32_000
)  # below those that the system gives to outgoing connections, which could take one meanwhile


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
