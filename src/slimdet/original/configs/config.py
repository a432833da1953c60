"""The original's config files, checked against every field the original knew."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slimdet.errors import ConfigError
from slimdet.messages import did_you_mean
from slimdet.original.configs.literals import LiteralFile, Section
from slimdet.original.configs.schema import CONFIG, KINDS, Field, Table

Warn = Callable[[str], None]
# Names that the original's configs define for their own use; after an edit nothing may refer to them any more. Other
# names of a file's own must be referred to: one that is not is taken for a misspelt field.
HELPERS = ("dataset_type", "data_root", "img_norm_cfg")


class Config(dict[str, Any]):
    """A dict whose keys are attributes too: `config.test_cfg.rpn.nms_thr`. Fields that were left out hold their
    defaults; lists are tuples."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


# Keys by which configs of later versions of mmdetection are known.
LATER = {
    **dict.fromkeys(("loss_cls", "loss_bbox", "loss_mask"), "0.6"),
    **dict.fromkeys(("pipeline", "train_pipeline", "test_pipeline"), "1.0"),
    **dict.fromkeys(("_base_", "roi_head", "anchor_generator", "bbox_coder", "init_cfg", "custom_hooks"), "2.0"),
    **dict.fromkeys(("train_dataloader", "optim_wrapper", "default_scope", "data_preprocessor", "val_evaluator"), "3.0"),
}


def read_config(path: str | Path, warn: Warn = print) -> Config:
    """Read one of the original's config files without executing it.

    Args:
        path: the file; its grammar is that of `LiteralFile`.
        warn: told, in one line each, of fields that have no effect.

    Raises:
        ConfigError: what `LiteralFile` raises, an unknown field (with the nearest known one), a wrong type or value,
            or a missing field; each with file and line.
    """
    file = LiteralFile(path)
    given = Section(1)
    for name, value in file.values.items():
        if name in CONFIG:
            given.put(name, value, file.values.lines[name])
        elif name not in file.used and name not in HELPERS:
            hint = _later(name) or did_you_mean(name, CONFIG)
            raise file.error(file.values.lines[name], f"unknown key {name!r}{hint}")
    config = _Checker(file, warn).section("", given, CONFIG, 1)
    _check_together(config, file)
    return config


def _later(key: str) -> str:
    """What to say of a key that mmdetection has had since a later version; empty for others."""
    version = LATER.get(key)
    return f"; it is of mmdetection {version} or later, and these commands read configs before 0.6" if version else ""


def from_plain(values: Mapping[str, Any], table: Table, what: str) -> Config:
    """A checked Config from dicts and lists, such as JSON gives.

    Raises:
        ConfigError: as `read_config`, with `what` in the place of file and line.
    """
    return _Checker(_Plain(what), lambda message: None).section("", _sectioned(values), table, 1)


class _Plain:
    def __init__(self, what: str) -> None:
        self.what = what

    def error(self, line: int, message: str) -> ConfigError:
        return ConfigError(f"{self.what}: {message}")


def _sectioned(values: Any) -> Any:
    if isinstance(values, Mapping):
        section = Section(1)
        for key, value in values.items():
            section.put(str(key), _sectioned(value), 1)
        return section
    return [_sectioned(value) for value in values] if isinstance(values, list | tuple) else values


class _Checker:
    def __init__(self, file: LiteralFile | _Plain, warn: Warn) -> None:
        self.file, self.warn = file, warn

    def section(self, path: str, given: Section, table: Table, line: int) -> Config:
        prefix = f"{path}." if path else ""
        for key in given:
            if key not in table:
                hint = _later(key) or did_you_mean(key, table) or f"; known are {', '.join(table)}"
                raise self.file.error(given.lines[key], f"unknown key {prefix + key!r}{hint}")
        checked = Config()
        for key, field in table.items():
            if key in given:
                checked[key] = self.value(prefix + key, given[key], field, given.lines[key])
            elif field.required:
                raise self.file.error(line, f"{prefix}{key} is missing")
            else:
                checked[key] = field.default
        return checked

    def value(self, path: str, value: Any, field: Field, line: int) -> Any:
        if value is None and (field.none or None in field.only):
            return None
        if not field.many:
            checked = self.one(path, value, field, line)
            if field.unused and checked != field.default:
                self.warn(f"{self.file.error(line, '')}{path}={value!r} has no effect: {field.unused}")
            return checked
        if not isinstance(value, list | tuple):
            raise self.wrong(path, value, f"a list of {_noun(field)}s", line)
        if field.length and len(value) != field.length:
            raise self.file.error(line, f"{path} has {len(value)} entries, not {field.length}")
        return tuple(self.one(f"{path}[{index}]", item, field, line) for index, item in enumerate(value))

    def one(self, path: str, value: Any, field: Field, line: int) -> Any:
        if not isinstance(field.kind, str):
            if not isinstance(value, Section):
                raise self.wrong(path, value, "a dict", line)
            return self.section(path, value, field.kind, value.line)
        bad_bool = isinstance(value, bool) and field.kind in ("number", "whole number")
        if bad_bool or not isinstance(value, KINDS[field.kind]):
            raise self.wrong(path, value, _noun(field, article=True), line)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.wrong(path, value, "a finite number", line)
        if isinstance(value, int | float) and not field.low <= value <= field.high:
            limits = [f"{side} {limit:g}" for side, limit in (("at least", field.low), ("at most", field.high))]
            shown = " and ".join(limit for limit in limits if "inf" not in limit)
            raise self.file.error(line, f"{path}={value!r} is out of range; it can be {shown}")
        if field.only and value not in field.only:
            allowed = ", ".join(map(repr, field.only))
            hint = did_you_mean(value, [str(name) for name in field.only]) if isinstance(value, str) else ""
            raise self.file.error(line, f"{path}={value!r} is not supported; it can be {allowed}{hint}")
        return value

    def wrong(self, path: str, value: Any, wanted: str, line: int) -> ConfigError:
        shown = repr(value) if len(repr(value)) <= 60 else type(value).__name__
        return self.file.error(line, f"{path} must be {wanted}, not {shown}")


def _noun(field: Field, article: bool = False) -> str:
    noun = field.kind if isinstance(field.kind, str) else "dict"
    return f"a {noun}" if article and noun not in ("True or False", "anything") else noun


def _check_together(config: Config, file: LiteralFile) -> None:
    """What no field can tell alone: the parts that a detector of this type has, and image scales."""
    model, test = config.model, config.test_cfg
    line = file.values.lines["model"]
    needed = {"rpn_head": model.type != "FastRCNN", "bbox_head": model.type != "RPN"}
    needed |= {"bbox_roi_extractor": model.type != "RPN", "mask_head": model.type == "MaskRCNN"}
    needed["mask_roi_extractor"] = model.mask_head is not None
    for part, is_needed in needed.items():
        if is_needed and model[part] is None:
            raise file.error(line, f"model.{part} is missing; a {model.type} has one")
    unwanted = {"FastRCNN": ("rpn_head",), "RPN": ("bbox_head", "mask_head")}.get(model.type, ())
    for part in unwanted:
        if model[part] is not None:
            raise file.error(line, f"model.{part} is given, but a {model.type} has none")
    for part, is_needed in (("rpn", model.type != "FastRCNN"), ("rcnn", model.type != "RPN")):
        for name in ("test_cfg", "train_cfg"):
            if is_needed and config[name] is not None and config[name][part] is None:
                raise file.error(file.values.lines[name], f"{name}.{part} is missing; a {model.type} has one")
    for split in ("train", "val", "test"):
        dataset = config.data[split]
        if dataset is not None:
            scales = image_scales(dataset.img_scale)
            if not scales:
                line = file.values["data"][split].lines["img_scale"]
                raise file.error(
                    line, f"data.{split}.img_scale={dataset.img_scale!r} is not (long, short) or a list of such pairs"
                )
    assert test is not None


def image_scales(value: Any) -> tuple[tuple[int, int], ...]:
    """The (long, short) pairs, in pixels, of an `img_scale`: one pair or a list of pairs; empty where malformed."""
    pairs = (value,) if isinstance(value, tuple | list) and value and not isinstance(value[0], tuple | list) else value
    if not isinstance(pairs, tuple | list):
        return ()
    for pair in pairs:
        whole = isinstance(pair, tuple | list) and all(type(side) is int and 0 < side <= 20_000 for side in pair)
        if not whole or len(pair) != 2:
            return ()
    return tuple((max(pair), min(pair)) for pair in pairs)
