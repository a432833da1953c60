"""A file read in pieces gives what one parse gives, and what is wrong with it is said."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from slimdet.data.annotations import LISTS
from slimdet.data.formats import reading
from slimdet.errors import DataError


def some_coco(draw: random.Random) -> dict[str, Any]:
    """Records of all kinds of JSON values, in lists of any length and order, with other things between them."""

    def value(depth: int = 0) -> Any:
        kind = draw.randrange(8 if depth < 3 else 5)
        if kind > 5:
            return [value(depth + 1) for _ in range(draw.randrange(4))]
        if kind == 5:
            return {f"key {n}": value(depth + 1) for n in range(draw.randrange(4))}
        return [None, True, draw.randrange(-999, 99999), draw.random() * 10 ** draw.randrange(-9, 19), 'é"},{"\\\n'][
            kind
        ]

    coco = {name: [value() for _ in range(draw.randrange(9))] for name in LISTS}
    coco |= {"info": value(), "version": draw.choice([1, 1.5, -2e-9]), "licenses": [value()]}
    names = list(coco)
    draw.shuffle(names)
    return {name: coco[name] for name in names}


@pytest.mark.parametrize("block", [1, 7, 64, 2**20])
def test_pieces_make_the_whole(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK", block)
    draw = random.Random(block)
    file = tmp_path / "a.json"
    for number in range(40):
        coco = some_coco(draw)
        text = json.dumps(coco, indent=draw.choice([None, 0, 3]), ensure_ascii=draw.random() < 0.5)
        file.write_bytes(text.encode(draw.choice(["utf-8", "utf-8-sig", "utf-16"])))
        assert reading.load_coco(file) == {name: coco[name] for name in LISTS}, number


@pytest.mark.parametrize("block", [1, 2**20])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK", block)
    whole = json.dumps({"images": [{"id": 1}, {"id": 2}], "info": [1.5, None], "annotations": [], "categories": []})
    file = tmp_path / "a.json"
    for length in range(len(whole)):
        file.write_text(whole[:length])
        with pytest.raises(DataError, match=r"a\.json: is not JSON"):
            reading.load_coco(file)


def test_the_place_of_a_mistake_is_told_in_later_blocks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK", 50)
    text = json.dumps({"images": [{"id": number} for number in range(100)]})
    file = tmp_path / "a.json"
    file.write_text(text.replace('{"id": 90}', '{"id"; 90}'))
    place = text.index('{"id": 90}') + len('{"id"')
    with pytest.raises(DataError, match=rf"character {place}\)"):
        reading.load_coco(file)


def test_two_lists_of_a_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"images": [], "images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match="two lists 'images'"):
        reading.load_coco(file)
