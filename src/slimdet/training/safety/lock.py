"""One process at a time trains in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimdet.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
_held: set[int] = set()


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep others from training in `folder`; a lock ends with its process, however that ends.

    Raises:
        ConfigError: another process, or another training of this one, has it.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(handle, 20).decode(errors="replace").strip()
                raise ConfigError(
                    f"{folder} is being trained in by process {owner or 'unknown'}; wait for it, or stop it first"
                ) from None
            except OSError:  # a file system without locks
                pass
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        _held.add(handle)
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


def _let_go() -> None:
    # A process that reads images may outlive a killed training by seconds; it must not hold the lock meanwhile.
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
