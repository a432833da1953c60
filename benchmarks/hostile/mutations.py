"""Structure-aware mutations: of JSON documents, of ONNX's fields, of XML's attributes, of bytes."""

import copy
import json
import random
import re
from typing import Any

NUMBERS = (0, -1, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**64, 10**30, 0.5, -0.0, 1e-300, 1e308, 1e400, float("nan"))
TEXTS = (
    "",
    "../secret",
    "/etc/hostname",
    "*/_ORT_MEM_ADDR_/*",
    "\x1b[2J",
    "a" * 5000,
    "(a+)+$",
    "\0",
    "1.0",
    "犬",
    "..",
)
VALUES: tuple[Any, ...] = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], {"": None})
# Fields of ONNX that hold messages, by the message's name: field -> message.
MESSAGES = {
    "model": {7: "graph", 8: "opset", 14: "entry"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor"},
    "tensor": {13: "entry"},
}


def mutate_json(document: Any, rng: random.Random) -> str:
    """A document with one to three values replaced, left out, or repeated; as JSON text."""
    changed = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(_places(changed))
        action = rng.random()
        if action < 0.7:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        elif action < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[rng.choice(TEXTS)] = copy.deepcopy(holder[key])
    text = json.dumps(changed)
    if rng.random() < 0.05:
        depth = rng.choice((10, 1000, 100_000))
        text = text.replace("null", "[" * depth + "]" * depth, 1)
    if rng.random() < 0.05:
        text = re.sub(r"\d+", "9" * 5000, text, count=rng.randint(1, 3))
    return text


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of all values below."""
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = [(value, key) for key in keys]
    return found + [place for key in keys for place in _places(value[key])]


def mutate_onnx(content: bytes, rng: random.Random) -> bytes:
    """An ONNX file with one to three fields changed, at any depth."""
    for _ in range(rng.randint(1, 3)):
        content = _mutated(content, "model", rng)
    return content


def _mutated(message: bytes, kind: str, rng: random.Random) -> bytes:
    fields = _fields(message)
    if not fields:
        return message + bytes(rng.randrange(256) for _ in range(rng.randint(0, 4)))
    nested = [place for place, (number, wire, _) in enumerate(fields) if wire == 2 and number in MESSAGES.get(kind, {})]
    if nested and rng.random() < 0.85:  # deeper
        numbers = sorted({fields[place][0] for place in nested})
        number = rng.choice(numbers)  # initializers are many, and external data rare: each kind alike
        place = rng.choice([one for one in nested if fields[one][0] == number])
        number, wire, value = fields[place]
        fields[place] = number, wire, _mutated(value, MESSAGES[kind][number], rng)
        return _joined(fields)
    place, action = rng.randrange(len(fields)), rng.random()
    number, wire, value = fields[place]
    if action < 0.15:
        del fields[place]
    elif action < 0.3:
        fields.insert(place, fields[rng.randrange(len(fields))])
    elif action < 0.4:
        fields[place] = rng.choice((number + 1, 5, 7, 13, 20, 25)), wire, value
    elif wire == 0:
        fields[place] = number, 0, rng.choice((0, 1, 2, 7, 10, 16, 2**31, 2**63, 2**64 - 1))
    elif rng.random() < 0.6:
        fields[place] = number, wire, rng.choice(TEXTS).encode()
    else:
        fields[place] = number, wire, flip(value, rng)
    return _joined(fields)


def _fields(message: bytes) -> list[tuple[int, int, Any]]:
    found, at = [], 0
    while at < len(message):
        key, at = _varint(message, at)
        value: Any
        if key & 7 == 0:
            value, at = _varint(message, at)
        else:
            length, at = _varint(message, at) if key & 7 == 2 else ({1: 8, 5: 4}.get(key & 7, 0), at)
            value, at = message[at : at + length], at + length
        found.append((key >> 3, key & 7, value))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            break
    return value, at


def _joined(fields: list[tuple[int, int, Any]]) -> bytes:
    parts = []
    for number, wire, value in fields:
        parts.append(_encoded(number << 3 | wire))
        parts.append(_encoded(value) if wire == 0 else (_encoded(len(value)) if wire == 2 else b"") + bytes(value))
    return b"".join(parts)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def mutate_xml(text: str, rng: random.Random) -> str:
    """OpenVINO's XML with some attributes changed, or an element cut out or repeated."""
    for _ in range(rng.randint(1, 3)):
        attributes = list(re.finditer(r'"([^"<]*)"', text))
        elements = list(re.finditer(r"<(\w+)[^>]*/>", text))
        if rng.random() < 0.8 or not elements:
            match = rng.choice(attributes)
            value = str(rng.choice((*NUMBERS, "", "Loop", "i64", "f16", "-5", "1,2,3")))
            text = text[: match.start(1)] + value + text[match.end(1) :]
        else:
            match = rng.choice(elements)
            text = text[: match.start()] + match[0] * rng.choice((0, 2)) + text[match.end() :]
    return text


def flip(content: bytes, rng: random.Random) -> bytes:
    """Bytes with some replaced, cut off, or with more behind."""
    changed = bytearray(content)
    action = rng.random()
    if action < 0.15:
        return bytes(changed[: rng.randrange(len(changed) + 1)])
    if action < 0.25:
        return bytes(changed) + rng.randbytes(rng.randint(1, 64))
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(changed)
