"""Images, annotations and detections as columns: a million of them in arrays, and read like a list of dicts.

N records. Data workers share the arrays with their parent, as no count of references is written into them.
"""

import pickle
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from numbers import Integral
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from slimdet.data.annotations import (
    LARGEST,
    encoded,
    is_number,
    rle_functions,
)

NO_ID = -(2**63)  # where a record has none, as results have
_BLOCK = 10_000  # records that are dicts at a time
_FEW = 64  # records of which each is looked at by itself where one is odd
_WHOLE = ("id", "image_id", "category_id")
_REAL = ("area", "iscrowd", "score")


class Packed(Sequence[Any]):
    """Plain values (text, lists, dicts, None) in one buffer; each is unpacked when it is asked for."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self._bytes, self._ends = bytearray(), array("q", [0])
        self.extend(values)

    def extend(self, values: Iterable[Any]) -> None:
        """Put values behind those that are there."""
        for value in values:
            if value is not None:
                self._bytes += pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            self._ends.append(len(self._bytes))

    def extend_by_none(self, count: int) -> None:
        """Put `count` times None behind what is there."""
        self._ends.extend([len(self._bytes)] * count)

    @property
    def size(self) -> int:
        """Bytes of all values; None has none."""
        return len(self._bytes)

    @property
    def absent(self) -> NDArray[np.int64]:
        """The places of None."""
        return np.flatnonzero(np.diff(np.array(self._ends)) == 0)

    def take(self, places: NDArray[np.integer]) -> "Packed":
        """The values at some places."""
        return Packed(self[place] for place in places.tolist())

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> "Packed": ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        start, end = self._ends[place], self._ends[place + 1]
        return None if start == end else pickle.loads(memoryview(self._bytes)[start:end])


class ImageRecords(Sequence[dict[str, Any]]):
    """COCO's images; each is made a dict of id, file_name, width and height when it is asked for.

    Attributes:
        ids: int64 [I].
        sizes: int64 [I, 2], height and width.
        names: [I], file names.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.ids = np.array([record["id"] for record in records], np.int64)
        self.sizes = np.array([[record["height"], record["width"]] for record in records], np.int64).reshape(-1, 2)
        self.names = Packed(record["file_name"] for record in records)

    def places_of(self, records: "Records") -> NDArray[np.int64]:
        """The place of each record's image, [N]."""
        order = np.argsort(self.ids)
        return order[places_of(records.image_id, self.ids[order])[0]]

    def sizes_of(self, records: "Records") -> NDArray[np.int64]:
        """(height, width) of each record's image, [N, 2]."""
        return self.sizes[self.places_of(records)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        height, width = self.sizes[place].tolist()
        return {"id": int(self.ids[place]), "file_name": self.names[place], "width": width, "height": height}


class Records(Sequence[dict[str, Any]]):
    """COCO's annotations or results; each is made a dict when it is asked for.

    Attributes:
        id, image_id, category_id: int64 [N]; an id may be `NO_ID`.
        bbox: float64 [N, 4], x, y, width, height.
        area, iscrowd, score: float64 [N], NaN where there is none.
        segmentation: [N], or None where there are none at all.
        odd: by place, records as they were given that columns cannot hold, or whose box is none; their columns hold
            what can be held. The rules say what is wrong with them.
    """

    def __init__(
        self,
        whole: Mapping[str, NDArray[np.int64]],
        bbox: NDArray[np.float64],
        real: Mapping[str, NDArray[np.float64]],
        segmentation: Packed | None = None,
        odd: Mapping[int, Any] | None = None,
    ) -> None:
        nothing = np.full(len(bbox), np.nan)
        self.id, self.image_id, self.category_id = (whole[name] for name in _WHOLE)
        self.bbox = bbox
        self.area, self.iscrowd, self.score = (real.get(name, nothing) for name in _REAL)
        self.segmentation = segmentation
        self.odd = dict(odd or {})

    @classmethod
    def of(cls, blocks: Iterable[Sequence[Any]], masks: bool = True) -> "Records":
        """Make columns of dicts.

        Args:
            blocks: the dicts, in any number of lists.
            masks: keep all segmentations; without, those alone that an area has yet to be told from.
        """
        columns = Columns(masks)
        for records in blocks:
            columns.add(records)
        return columns.records()

    def take(self, places: NDArray[np.integer]) -> "Records":
        """The records at some places, without the odd ones among them."""
        whole, real = ({name: getattr(self, name)[places] for name in names} for names in (_WHOLE, _REAL))
        shapes = None if self.segmentation is None else self.segmentation.take(places)
        return Records(whole, self.bbox[places], real, shapes)

    def __len__(self) -> int:
        return len(self.bbox)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        place = range(len(self))[place]
        return self.odd[place] if place in self.odd else next(self._dicts(slice(place, place + 1)))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), _BLOCK):
            for place, record in enumerate(self._dicts(slice(start, start + _BLOCK)), start):
                yield self.odd.get(place, record)

    def _dicts(self, part: slice) -> Iterator[dict[str, Any]]:
        columns: dict[str, list[Any]] = {name: getattr(self, name)[part].tolist() for name in (*_WHOLE, "bbox")}
        real = {name: getattr(self, name)[part] for name in _REAL}
        for name, values in real.items():
            columns[name] = [None if value != value else value for value in values.tolist()]
        columns["segmentation"] = [
            None if self.segmentation is None else self.segmentation[place] for place in range(len(self))[part]
        ]
        columns["id"] = [None if value == NO_ID else value for value in columns["id"]]
        columns["iscrowd"] = [None if value is None else int(value) for value in columns["iscrowd"]]
        for values in zip(*columns.values(), strict=True):
            yield {name: value for name, value in zip(columns, values, strict=True) if value is not None}


class Columns:
    """Dicts that come block by block, on their way to `Records`; the arguments are those of `Records.of`."""

    def __init__(self, masks: bool = True) -> None:
        self._masks, self._count = masks, 0
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in (*_WHOLE, "bbox", *_REAL)}
        self._segmentation = Packed()
        self._odd: dict[int, Any] = {}

    def add(self, records: Sequence[Any]) -> None:
        """Put some records behind those that came before."""
        for start in range(0, len(records), _BLOCK):
            block = records[start : start + _BLOCK]
            columns, unfit = _columns(block)
            for name, values in columns.items():
                self._parts[name].append(values)
            self._odd |= {self._count + place: block[place] for place in unfit}
            self._count += len(block)
            if self._masks or np.isnan(columns["area"]).any():
                self._segmentation.extend(_shape(record, self._masks) for record in block)
            else:
                self._segmentation.extend_by_none(len(block))

    def records(self) -> Records:
        """All of them; the columns are theirs then, and nothing can be added."""
        # Column by column, so that no two are there twice at a time.
        joined = {name: _join(self._parts.pop(name), name) for name in tuple(self._parts)}
        real = {name: joined[name] for name in _REAL if not np.isnan(joined[name]).all()}
        return Records(joined, joined["bbox"], real, self._segmentation if self._segmentation.size else None, self._odd)


def _join(parts: list[np.ndarray], name: str) -> np.ndarray:
    kind = np.int64 if name in _WHOLE else np.float64
    return np.concatenate([*parts, np.zeros((0, 4) if name == "bbox" else 0, kind)])


def _shape(record: Any, masks: bool) -> Any:
    if not isinstance(record, Mapping):
        return None
    return (record.get("segmentation") or None) if masks or record.get("area") is None else None


def _columns(records: Sequence[Any]) -> tuple[dict[str, np.ndarray], list[int]]:
    """Columns of some records, and the places of the odd ones."""
    columns = _fast(records)
    if columns is not None:
        return columns, []
    if len(records) > _FEW:  # the odd ones are few and are found by halving
        middle = len(records) // 2
        (first, odd), (second, others) = _columns(records[:middle]), _columns(records[middle:])
        both = {name: np.concatenate([first[name], second[name]]) for name in first}
        return both, odd + [middle + place for place in others]
    ones = [_one(record) for record in records]
    given = {name: [one[name] for one, _ in ones] for name in ones[0][0]}
    columns = {name: np.array([NO_ID if one is None else one for one in given[name]], np.int64) for name in _WHOLE}
    columns |= {name: np.array(given[name], np.float64) for name in _REAL}  # None becomes NaN
    columns["bbox"] = np.array([box or [0.0] * 4 for box in given["bbox"]])
    return columns, [place for place, (_, odd) in enumerate(ones) if odd]


def _fast(records: Sequence[Any]) -> dict[str, np.ndarray] | None:
    """Columns of records that are as JSON has them and hold no value that is no number; else None."""
    if set(map(type, records)) != {dict}:
        return None
    columns: dict[str, np.ndarray] = {}
    try:
        for name in _WHOLE:
            values = [record.get(name) for record in records]
            kinds = set(map(type, values))
            if name == "id" and kinds == {type(None)}:  # results have none
                values = [NO_ID] * len(values)
            elif kinds != {int}:
                return None
            columns[name] = np.array(values, np.int64)
        boxes = [record.get("bbox") for record in records]
        if set(map(type, boxes)) != {list} or not set(map(type, chain.from_iterable(boxes))) <= {int, float}:  # type: ignore[arg-type]
            return None
        columns["bbox"] = bbox = np.array(boxes, np.float64)
        if bbox.shape != (len(records), 4) or not (np.abs(bbox) <= LARGEST).all() or not (bbox[:, 2:] > 0).all():
            return None
        for name in _REAL:
            values = [record.get(name) for record in records]
            if not set(map(type, values)) <= {int, float, type(None)}:
                return None
            numbers = np.array(values, np.float64)  # None becomes NaN
            if np.count_nonzero(np.abs(numbers) <= LARGEST) != len(values) - values.count(None):
                return None
            columns[name] = numbers
    except (TypeError, ValueError, OverflowError):
        return None
    return columns


def _one(record: Any) -> tuple[dict[str, Any], bool]:
    """The values of one record, of numbers of other types too, None where it has none; whether it is odd."""
    given = record if isinstance(record, Mapping) else {}
    plain: dict[str, Any] = {}
    for name in _WHOLE:
        value = given.get(name)
        fits = isinstance(value, Integral) and abs(int(value)) < 2**63
        plain[name] = int(value) if fits else None  # type: ignore[arg-type]
    for name in _REAL:
        plain[name] = float(given[name]) if is_number(given.get(name)) else None
    box = given.get("bbox")
    right = isinstance(box, list | tuple | np.ndarray) and len(box) == 4 and all(map(is_number, box))
    plain["bbox"] = [float(value) for value in box] if right else None  # type: ignore[union-attr]
    lost = any(plain[name] is None and given.get(name) is not None for name in (*_WHOLE, *_REAL))
    whole = None not in (plain["image_id"], plain["category_id"])
    sound = whole and not lost and plain["bbox"] is not None and min(plain["bbox"][2:]) > 0
    return plain, not sound


def fill_areas(records: Records, sizes: NDArray[np.integer]) -> None:
    """Set the areas that are missing: the mask's where there is one, else the box's.

    Args:
        records: without faults.
        sizes: [N, 2], height and width of each record's image.
    """
    missing = np.isnan(records.area)
    records.area = np.where(missing, records.bbox[:, 2] * records.bbox[:, 3], records.area)
    shapes = records.segmentation
    for place in np.flatnonzero(missing).tolist() if shapes is not None else ():
        if shapes is not None and (shape := shapes[place]):
            height, width = sizes[place].tolist()
            records.area[place] = float(rle_functions().area(encoded(shape, width, height)))


def places_of(ids: NDArray[np.int64], known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each of `ids` [N] is in the ascending `known`, and whether it is."""
    places = np.minimum(np.searchsorted(known, ids), max(0, len(known) - 1))
    return places, (known[places] == ids) if len(known) else np.zeros(len(ids), bool)
