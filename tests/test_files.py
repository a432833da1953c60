"""Files and folders appear whole or not at all, whoever is killed and however full the disk is."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slimdet import files
from slimdet.files import atomic_folder, atomic_write, restore_folder


def write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def replace_folder(path: Path, text: str, keep: tuple[str, ...] = ()) -> None:
    with atomic_folder(path, keep=keep) as temporary:
        (temporary / "content").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def killed_within(code: str, folder: Path) -> None:
    """Run a writer that kills itself at the line `die()`."""
    head = "import os, signal; from slimdet import files; die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run([sys.executable, "-c", head + code], cwd=folder)
    assert done.returncode == -signal.SIGKILL


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write(tmp_path / "new" / "x.txt", "old")
    with pytest.raises(TypeError), atomic_write(tmp_path / "new" / "x.txt") as temporary:
        temporary.write_bytes("no bytes")  # type: ignore[arg-type]
    assert (tmp_path / "new" / "x.txt").read_text() == "old"
    assert names(tmp_path / "new") == ["x.txt"]


def test_what_is_written_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append((tmp_path / "x").exists()))
    write(tmp_path / "x", "text")
    assert seen == [False, True]  # the file, then its folder
    seen.clear()
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append((tmp_path / "d").exists()))
    replace_folder(tmp_path / "d", "text")
    assert seen == [False, False, True]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    killed_within("with files.atomic_write('x.pt') as new: new.write_text('half'); die()", tmp_path)
    killed_within("with files.atomic_folder('d') as new: (new / 'content').write_text('half'); die()", tmp_path)
    assert [name.split("-")[0] for name in names(tmp_path)] == [".d"]  # the second writer removed what the first left
    (tmp_path / ".x-mine.pt").write_text("the user's")
    with atomic_write(tmp_path / "y") as living:  # sweeps
        living.write_text("y")
        files._sweep.cache_clear()
        write(tmp_path / "x.pt", "x")
        assert living.exists()
    assert names(tmp_path) == [".x-mine.pt", "x.pt", "y"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = tmp_path / "model"
    replace_folder(path, "old")
    (path / "notes.txt").write_text("mine")
    (path / "pictures").mkdir()
    (path / "pictures" / "a").write_text("a")
    replace_folder(path, "new", keep=("notes.txt", "pictures"))
    assert (path / "content").read_text() == "new"
    assert (path / "notes.txt").read_text() == "mine"
    assert (path / "pictures" / "a").read_text() == "a"
    replace_folder(path, "newer")
    assert names(path) == ["content"]
    assert names(tmp_path) == ["model"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    replace_folder(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    replace_folder(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "content").read_text() == "new"


@pytest.mark.skipif(sys.platform != "linux", reason="exchanging names needs Linux")
def test_two_names_are_exchanged_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert files._exchange(tmp_path / "a", tmp_path / "b")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])
    assert not files._exchange(tmp_path / "a", tmp_path / "nowhere")


def test_a_folder_whose_writer_was_killed_between_two_names_is_found_again(tmp_path: Path) -> None:
    replace_folder(tmp_path / "model", "old")
    code = """
import pathlib
files._exchange = lambda *_: False
rename = pathlib.Path.rename
pathlib.Path.rename = lambda self, to: die() if '-writing-' in self.name else rename(self, to)
with files.atomic_folder('model') as new: (new / 'content').write_text('new')
"""
    killed_within(code, tmp_path)
    assert not (tmp_path / "model").exists()
    assert restore_folder(tmp_path / "model")
    assert (tmp_path / "model" / "content").read_text() == "old"
    assert not restore_folder(tmp_path / "model")
    assert not restore_folder(tmp_path / "nothing")


def test_a_folder_gets_its_name_back_when_the_new_one_cannot_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_folder(tmp_path / "model", "old")
    rename = Path.rename

    def full(self: Path, to: Path) -> Path:
        if "-writing-" in self.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        replace_folder(tmp_path / "model", "new")
    assert (tmp_path / "model" / "content").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    def as_torch_does() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904

    with pytest.raises(OSError, match=r"No space left on device: '.*x\.pt'"), atomic_write(tmp_path / "x.pt"):
        as_torch_does()
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "x.pt"):
        _ = 1 / 0
