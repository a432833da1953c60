"""Where files go and how they get there: whole or not at all, whether the process is killed or the power fails."""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from slimdet.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing is cleaned up after killed writers
    fcntl = None

_MARK = "-writing-"  # in the names of temporaries
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, remove it on failure.

    A reader sees the old file or the new one, never half of either, after a power cut too. Missing parent folders are
    made. What killed writers left in the folder is removed.

    Raises:
        OSError: the disk is full or cannot be written to; it names `path`, which stays as it was.
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent.absolute())
        # The suffix is kept: writers such as matplotlib and Pillow choose the format by it.
        temporary, lock = _temporary_file(path)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private; these are ordinary ones
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(lock)


@contextmanager
def atomic_folder(path: str | Path, keep: Iterable[str] = ()) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; put it in the place of `path` on success, remove it on failure.

    There is a whole folder at `path` at every moment where the system can exchange two names at once (Linux); elsewhere
    a killed writer may leave it under another name, under which `restore_folder` finds it.

    Args:
        path: the folder.
        keep: names of files and folders in the one that is there, to be in the new one too.

    Raises:
        OSError: as `atomic_write`.
    """
    path = Path(path).resolve()  # of a link, what it points to is replaced
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        restore_folder(path)
        temporary, lock = _temporary_folder(path)
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            for name in keep:
                _keep(path / name, temporary / name)
            for entry in (*temporary.rglob("*"), temporary):
                sync(entry)
            _put(temporary, path)
            sync(path.parent)
        finally:
            restore_folder(path)
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)


def restore_folder(path: str | Path) -> bool:
    """Give a folder its name back whose writer was killed between two renames; say whether there was one."""
    path = Path(path).resolve()
    with suppress(OSError):
        if not path.exists() and (aside := _aside(path)).is_dir():
            aside.rename(path)
            return True
    return False


def sync(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's list of names."""
    is_folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not is_folder or error.errno in _FULL:  # some file systems do not sync folders
            raise


def _put(new: Path, path: Path) -> None:
    """Rename `new` to `path`; the folder that was there is then called `new`, or gone."""
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        aside = _aside(path)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        new.rename(path)
        shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}-before")


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change names in one indivisible step, where the system and the file system can."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), both) == 0


def _keep(source: Path, target: Path) -> None:
    def link(one: str, other: str) -> None:
        try:
            os.link(one, other, follow_symlinks=False)
        except OSError:  # a file system without links
            shutil.copy2(one, other, follow_symlinks=False)

    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=link)
    elif not os.path.lexists(target):
        link(str(source), str(target))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let the error of a full disk name the file that was to be written, whatever library met it."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:  # torch raises a RuntimeError of its own while it handles the OSError
            if isinstance(cause, OSError) and cause.errno in _FULL:
                if cause.filename and _MARK not in str(cause.filename):  # that of a file written meanwhile
                    raise
                raise OSError(cause.errno, os.strerror(cause.errno), str(path)) from error
            cause = cause.__cause__ or cause.__context__
        raise


# --- temporaries: whoever writes one holds a lock on it, so that one without is known to be a leftover


def _temporary_file(path: Path) -> tuple[Path, int]:
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}{_MARK}", suffix=path.suffix)
        if _still_there(name, handle):
            return Path(name), handle


def _temporary_folder(path: Path) -> tuple[Path, int]:
    while True:
        name = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}{_MARK}")
        with suppress(FileNotFoundError):
            handle = os.open(name, os.O_RDONLY)
            if _still_there(name, handle):
                return Path(name), handle


def _still_there(name: str, handle: int) -> bool:
    """Lock a new temporary; False where a sweep came in between."""
    if fcntl:
        with suppress(OSError):  # a file system without locks, which nobody sweeps then
            fcntl.flock(handle, fcntl.LOCK_EX)
    if os.path.exists(name):
        return True
    os.close(handle)
    return False


@cache  # once for each folder: it may hold many thousands of pictures
def _sweep(folder: Path) -> None:
    """Remove the temporaries of killed writers."""
    if fcntl is None:
        return
    for leftover in folder.glob(f".*{_MARK}????????*"):
        with suppress(OSError):
            handle = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            finally:
                os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def new_run_dir(verb: str, out: str | Path | None = None, root: str | Path = "runs") -> Path:
    """Make and return the folder a verb writes to: `out`, or the first free `runs/<verb>-N`.

    Raises:
        ConfigError: `out` exists and is not an empty folder (results are never overwritten).
    """
    if out is not None:
        path = Path(out)
        try:
            path.mkdir(parents=True)  # of several who want it, one makes it
        except FileExistsError:
            if not path.is_dir() or any(path.iterdir()):
                raise ConfigError(
                    f"--out {path} already exists and is not empty; choose another folder or remove it"
                ) from None
        return path
    number = 1
    while True:
        path = Path(root) / f"{verb}-{number}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1
