"""Words that error messages share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from slimdet.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, 500 characters at most; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def printable(text: str) -> str:
    """Text from a file as it is shown: what would steer a terminal, or begin another line, stands as an escape."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def printable_lines(text: str) -> str:
    """`printable` for text in lines of its own."""
    return "\n".join(map(printable, text.split("\n")))


def listed(names: Sequence[str], shown: int = 8) -> str:
    """`"a, b and 3 more"`: the first names and the number of the others; "none" where there are none."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "none") + more


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean train?"` for the nearest of the `known` words, or an empty string when none is near."""
    spelled = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), spelled, n=1)
    return f"; did you mean {spelled[near[0]]}?" if near else ""


def check_choice(what: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ConfigError: it names the value, the choices and the nearest of them.
    """
    choices = list(choices)
    if not any(value is choice or value == choice for choice in choices):
        known = [str(choice) for choice in choices]
        raise ConfigError(f"{what} {value!r} is not one of {', '.join(known)}{did_you_mean(str(value), known)}")


def check_choices(settings: Any) -> None:
    """Refuse settings (a dataclass) with a field that is none of the words its `Literal` annotation allows.

    Raises:
        ConfigError: as `check_choice`, naming the field as the command line does.
    """
    for name, hint in get_type_hints(type(settings)).items():
        if get_origin(hint) is Literal:
            check_choice(f"--{name.replace('_', '-')}", getattr(settings, name), get_args(hint))


def with_fields(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings (a dataclass) with some fields changed.

    Raises:
        ConfigError: they have no such field; it names the nearest.
    """
    for name in changes:
        check_choice(f"{type(settings).__name__}:", name, [field.name for field in fields(settings)])
    return replace(settings, **changes)
