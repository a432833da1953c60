"""Columns give back what was put in."""

import pickle
from typing import Any

import numpy as np
import pytest

from slimdet.data.formats import records
from slimdet.data.formats.records import ImageRecords, Packed, Records


def sound(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1.5, 2.0, 10.0, 8.0], "area": 80.0} | changes


def test_packed_values() -> None:
    values = ["name.jpg", None, [[1, 2.5, 3]], {"size": [3, 4], "counts": b"04"}, [], ""]
    packed = Packed(values)
    assert list(packed) == values
    packed.extend_by_none(2)
    assert list(packed) == [*values, None, None]
    assert list(packed.take(np.array([3, 0]))) == [values[3], values[0]]
    assert list(pickle.loads(pickle.dumps(packed))) == [*values, None, None]


def test_images_read_like_dicts() -> None:
    given = [{"id": 9, "file_name": "ä/b.jpg", "width": 40, "height": 30, "license": 3}]
    images = ImageRecords(given)
    assert list(images) == [{"id": 9, "file_name": "ä/b.jpg", "width": 40, "height": 30}]
    with pytest.raises(IndexError):
        images[1]


def test_records_read_like_the_dicts_they_were_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_BLOCK", 2)
    given = [
        sound(),
        sound(id=2, iscrowd=1),
        sound(id=3, score=0.5, segmentation=[[1, 2, 3, 4, 5, 6]]),
        sound(id=4, bbox=[1.0, 2.0, 0.0, 4.0]),
    ]
    del given[0]["area"]
    columns = Records.of([given[:3], given[3:]])
    assert list(columns) == given
    assert [columns[place] for place in (-1, 0)] == [given[-1], given[0]]
    assert list(columns[1:3]) == given[1:3]
    without = Records.of([given], masks=False)
    assert without.segmentation is None
    assert len(without) == 4


def test_numpys_numbers_are_numbers() -> None:
    given = sound(id=np.int64(4), bbox=np.array([1, 2, 3, 4], np.float32), score=np.float32(0.5))
    (record,) = Records.of([[given]])
    assert record == sound(id=4, bbox=[1.0, 2.0, 3.0, 4.0], score=0.5)


def test_many_odd_records_are_looked_at_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    tries, fast = [], records._fast
    monkeypatch.setattr(records, "_fast", lambda given: tries.append(len(given)) or fast(given))
    given = [sound(id=number, bbox=[1.0, 2.0, 0.0, 4.0]) for number in range(1, 1001)]
    columns = Records.of([given])
    assert list(columns.odd) == list(range(1000))
    assert list(columns) == given
    assert len(tries) < 40
