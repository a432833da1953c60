"""Which images a job has: the same blocks again when it is resumed."""

from pathlib import Path

import pytest

from slimdet.errors import DataError
from slimdet.jobs.listing import blocks, listed


def test_each_image_once_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.jpg", "a/c.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert listed(["a", "b.jpg", str(tmp_path)]) == [str(tmp_path / "a/c.png"), str(tmp_path / "b.jpg")]


def test_a_parquet_list_counts_from_its_folder(tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    file = tmp_path / "list.parquet"
    parquet.write_table(arrow.table({"path": ["a.jpg", "/b.jpg", "a.jpg"], "other": [1, 2, 3]}), file)
    assert listed([str(file)]) == [str(tmp_path / "a.jpg"), "/b.jpg"]
    parquet.write_table(arrow.table({"other": [1]}), file)
    with pytest.raises(DataError, match="column 'path'"):
        listed([str(file)])
    file.write_bytes(b"no")
    with pytest.raises(DataError, match=r"list\.parquet"):
        listed([str(file)])


def test_blocks_that_are_left_are_blocks_of_the_whole() -> None:
    files = [f"/{number}.jpg" for number in range(10)]
    whole = blocks(files, 3, 2)
    assert [len(block.files) for block in whole] == [3, 3, 3, 1]
    assert [block.rounds for block in whole] == [2, 2, 1, 1]
    assert len({block.part for block in whole}) == 4
    done = set(whole[0].files + whole[2].files)
    assert [block.part for block in blocks(files, 3, 1, done)] == [whole[1].part, whole[3].part]
