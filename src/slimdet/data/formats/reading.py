"""A COCO file read piece by piece: what is not kept of a record is never in memory with all the others."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from slimdet.data.annotations import LISTS
from slimdet.errors import DataError

_BLOCK = 2**20  # characters that are read, and about as many that are handed out, at a time
_SPACES = " \t\n\r"
_raw_decode = json.JSONDecoder().raw_decode


def load_coco(annotations: str | Path) -> dict[str, Any]:
    """A COCO instances JSON as dicts: its lists images, annotations and categories.

    Raises:
        DataError: as `read_lists`.
    """
    coco: dict[str, Any] = {name: [] for name in LISTS}
    for name, records in read_lists(annotations):
        coco[name] += records
    return coco


def read_lists(annotations: str | Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield (name, records): the lists of a COCO instances JSON in the file's order, block by block.

    Raises:
        DataError: no such file, not JSON, or without one of the lists images, annotations and categories. It may come
            after some blocks.
    """
    try:
        with Path(annotations).open("rb") as file:
            encoding = json.detect_encoding(file.read(4))
        with Path(annotations).open(encoding=encoding, errors="surrogatepass", newline="") as text:
            yield from _Scanner(text, str(annotations)).lists()
    except OSError as error:
        raise DataError(f"{annotations}: cannot be read: {error.strerror}") from None
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{annotations}: is not JSON: {error}") from None


def make_whole(records: Iterable[Any], names: Iterable[str]) -> None:
    """Make whole numbers of those that are text ("7") or have a point (7.0), in place."""
    for record in records:
        for name in names if isinstance(record, dict) else ():
            value = record.get(name)
            if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _is_whole(value)):
                record[name] = int(value)


def _is_whole(text: str) -> bool:
    return text.isascii() and len(text) < 20 and text.removeprefix("-").isdigit()


class _Scanner:
    """A window of the file, `text[at:]`, that is filled when what is wanted reaches over its end."""

    def __init__(self, file: TextIO, name: str) -> None:
        self.file, self.name = file, name
        self.text, self.at, self.passed = "", 0, 0  # characters that were dropped

    def lists(self) -> Iterator[tuple[str, list[Any]]]:
        if self.peek() != "{":
            kind = type(self.value()).__name__
            hint = "; it may be a list of detections" if kind == "list" else ""
            raise DataError(f"{self.name}: is not COCO instances JSON: a {kind}, not an object{hint}")
        found = set()
        self.at += 1
        if self.peek() != "}":
            while True:
                if self.peek() != '"':
                    self.fail("expected a name in double quotes")
                key = self.value()
                self.expect(":")
                if key in LISTS and self.peek() == "[":
                    if key in found:
                        raise DataError(f"{self.name}: is not COCO instances JSON: two lists {key!r}")
                    found.add(key)
                    for records in self.records():
                        yield key, records
                else:
                    self.value()
                if self.expect(",}") == "}":
                    break
        else:
            self.at += 1
        if self.peek():
            self.fail("more follows after its end")
        missing = [name for name in LISTS if name not in found]
        if missing:
            lacking = " and no list ".join(map(repr, missing))
            raise DataError(f"{self.name}: is not COCO instances JSON: no list {lacking}")

    def records(self) -> Iterator[list[Any]]:
        """The entries of the list that begins here, in blocks."""
        self.at += 1
        records: list[Any] = []
        if self.peek() == "]":
            self.at += 1
            return
        start = self.passed + self.at
        while True:
            self.skim(records)
            records.append(self.value())
            if self.expect(",]") == "]":
                break
            if self.passed + self.at - start > _BLOCK:
                yield records
                records, start = [], self.passed + self.at
        yield records

    def skim(self, records: list[Any]) -> None:
        """Take the entries that the window holds whole, but for the last one: fast, where `value` is careful."""
        self.peek()
        text, at = self.text, self.at
        try:
            while True:
                value, end = _raw_decode(text, at)
                if text[end] != ",":
                    return
                at = end + 1
                while text[at] in _SPACES:
                    at += 1
                records.append(value)
                self.at = at
        except (json.JSONDecodeError, IndexError):
            return

    def value(self) -> Any:
        """The JSON value that begins here."""
        self.peek()
        while True:
            try:
                value, end = _raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:  # it may go on where the window ends
                if not self.fill():
                    self.at = error.pos
                    self.fail(error.msg)
                continue
            if end + 3 > len(self.text) and self.fill():  # a number may: 1, 1.5, 1e+5
                continue
            self.at = end
            return value

    def expect(self, allowed: str) -> str:
        """Step over the next character, which has to be one of these."""
        found = self.peek()
        if not found or found not in allowed:
            self.fail(f"expected {' or '.join(map(repr, allowed))}")
        self.at += 1
        return found

    def peek(self) -> str:
        """The next character that is no space; empty at the file's end."""
        while self.at < len(self.text) or self.fill():
            if self.text[self.at] not in _SPACES:
                return self.text[self.at]
            self.at += 1
        return ""

    def fill(self) -> bool:
        """Read on; at least as much again as there is, so that a long value is not tried often."""
        more = self.file.read(max(_BLOCK, len(self.text) - self.at))
        if more:
            self.passed += self.at
            self.text, self.at = self.text[self.at :] + more, 0
        return bool(more)

    def fail(self, reason: str) -> NoReturn:
        raise ValueError(f"{reason} (character {self.passed + self.at})")
