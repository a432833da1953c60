"""From functions to a command line: a verb is a function, its arguments are its flags.

    def profile(*, model: Annotated[Model, "the bundle"], imgsz: Annotated[Count, "shorter side"] = 640) -> Outcome:
        '''Parameters, multiply-adds, latency and memory of every width.

        Example:
            slimdet profile --model bundled
        '''

Keyword-only arguments become `--name value`, positional-only ones and `*args` become positional arguments; those
without a default are required. The annotation holds the help and (`slimdet.cli.flags`) the check of the value; the
docstring is the help text. Every verb gets `--help` and `--json`. An argument `given` is no flag: it gets the names of
those that were written.

Exit codes: 0 success; 2 a user's mistake, told in one line; 1 what the user asked to hold does not, or our fault;
130 Ctrl-C, 143 SIGTERM; 141 stdout's reader went away.
Nothing heavy is imported here: `slimdet --help` answers in under 0.1 s.
"""

import argparse
import inspect
import json
import logging
import os
import re
import signal
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from slimdet.cli.flags import choice
from slimdet.errors import SlimdetError
from slimdet.messages import did_you_mean, printable, printable_lines

# Modules that come with an extra, by import name: a missing one is answered with the command that gets it.
EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "safetensors": "train",
    "faster_coco_eval": "train",
    "pycocotools": "train",
    "yaml": "train",
    "rich": "train",
    "tensorboard": "train",
    "matplotlib": "plot",
    "jinja2": "plot",
    "cv2": "original",
    "onnx": "export",
    "openvino": "openvino",
    "nncf": "int8",
    "starlette": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "av": "video",
    "trackers": "video",
    "ray": "ray",
}


@dataclass(frozen=True)
class Outcome:
    """What a verb hands back: the `document` that --json prints (a dataclass or a mapping), the `view` (text or
    anything rich can print) for people, the `mistake` to end with (exit code 2) when part of the input could not be
    used, and what is `unkept` (exit code 1) of what the user asked to hold.
    """

    document: Any
    view: Any = ""
    mistake: str = ""
    unkept: str = ""


GIVEN = "given"
NOTHING = Outcome(None)  # of a process whose results another one shows


class UsageError(SlimdetError):
    """A command line that is not understood."""


# --- from a function to a parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = "" if "did you mean" in message else f"; see '{self.prog} --help'"
        raise UsageError(message.removeprefix("argument ") + hint)


def _unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The plain type and all notes of `Annotated[Annotated[T, note] | None, note]`, in any nesting."""
    if hasattr(hint, "__metadata__"):
        kind, notes = _unwrap(hint.__origin__)
        return kind, notes + hint.__metadata__
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _unwrap(next(option for option in typing.get_args(hint) if option is not types.NoneType))
    return hint, ()


def _argument(parameter: inspect.Parameter, hint: Any) -> tuple[str, dict[str, Any]]:
    """One function parameter as the name and keywords of `ArgumentParser.add_argument`."""
    kind, notes = _unwrap(hint)
    required = parameter.default is inspect.Parameter.empty
    positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    text = next((note for note in notes if isinstance(note, str)), "").replace("%", "%%")
    if not required and parameter.default is not None and parameter.default is not False:
        default = parameter.default
        text += f" (default {','.join(map(str, default)) if isinstance(default, tuple) else default})"
    options: dict[str, Any] = {"help": text, "default": None if required else parameter.default}
    if kind is bool:
        on_off = "store_true" if parameter.default is False else argparse.BooleanOptionalAction
        return "--" + parameter.name.replace("_", "-"), options | {"action": on_off}
    options["type"] = kind
    if typing.get_origin(kind) is Literal:
        allowed = typing.get_args(kind)
        options |= {"type": choice(allowed), "metavar": "{" + ",".join(allowed) + "}"}
    for note in notes:
        if callable(note):
            options["type"] = note
    options.setdefault("metavar", parameter.name.upper())
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        options["nargs"] = "+"
    if positional:
        return parameter.name, options if required else options | {"nargs": "?"}
    return "--" + parameter.name.replace("_", "-"), options | {"required": required}


def parser_of(function: Callable[..., Outcome]) -> argparse.ArgumentParser:
    """The argument parser of one verb, from its signature and docstring."""
    verb = function.__name__
    parser = _Parser(
        prog=f"slimdet {verb}",
        description=inspect.getdoc(function),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    hints = typing.get_type_hints(function, include_extras=True)
    for parameter in _flags(function):
        name, options = _argument(parameter, hints[parameter.name])
        parser.add_argument(name, **options)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, all else on stderr")
    return parser


def _flags(function: Callable[..., Outcome]) -> list[inspect.Parameter]:
    return [parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != GIVEN]


def _call(function: Callable[..., Outcome], arguments: Mapping[str, Any]) -> Outcome:
    positional: list[Any] = []
    flags: dict[str, Any] = {}
    if GIVEN in inspect.signature(function).parameters:
        flags[GIVEN] = arguments[GIVEN]
    for parameter in _flags(function):
        value: Any = arguments[parameter.name]
        if isinstance(value, Path):  # a shell expands --out ~/x, but not --out=~/x
            value = value.expanduser()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            flags[parameter.name] = value
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            positional += value
        else:
            positional.append(value)
    return function(*positional, **flags)


# --- running


def _refuse_unknown_flags(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    # Ahead of argparse, which would report a misspelled required flag as missing.
    known = parser._option_string_actions
    for word in words:
        flag = word.split("=", 1)[0]
        if re.match(r"--?[A-Za-z]", flag) and flag not in known:
            hint = did_you_mean(flag, known)
            raise UsageError(f"unknown flag {flag}{hint or '; see ' + repr(parser.prog + ' --help')}")


def _overview(verbs: Mapping[str, Callable[..., Outcome]]) -> str:
    lines = [f"  {name:<10} {(inspect.getdoc(verb) or '').splitlines()[0]}" for name, verb in verbs.items()]
    return "\n".join(
        [
            "usage: slimdet VERB [--flag value ...]",
            "",
            "One detector, one set of weights, run at any width.",
            "",
            *lines,
            "",
            "'slimdet VERB --help' shows the flags of a verb and an example; 'slimdet --version' the version.",
        ]
    )


def _plain(value: Any) -> Any:
    """A result as JSON has it: dataclasses become objects, paths become strings."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _show(outcome: Outcome, as_json: bool) -> None:
    if outcome is NOTHING:
        return
    if as_json:
        print(json.dumps(outcome.document, indent=2, allow_nan=False, default=_plain))
    elif isinstance(outcome.view, str):
        print(printable_lines(outcome.view), end="\n" if outcome.view else "")
    else:
        from rich.console import Console

        # Piped output is not cut to a terminal's 80 columns.
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
        Console(markup=False, emoji=False, highlight=False, width=width).print(outcome.view)


def _dispatch(verbs: Mapping[str, Callable[..., Outcome]], argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(verbs))
        return 0
    verb, rest = argv[0], argv[1:]
    if verb == "--version":
        from slimdet import __version__

        print(f"slimdet {__version__}")
        return 0
    if verb.startswith("-"):
        raise UsageError(f"{verb} stands before the verb; write 'slimdet VERB {verb}', see 'slimdet --help'")
    if verb not in verbs:
        hint = did_you_mean(verb, verbs) or f"; the verbs are {', '.join(verbs)}"
        raise UsageError(f"unknown verb {verb!r}{hint}")
    parser = parser_of(verbs[verb])
    words = rest[: rest.index("--")] if "--" in rest else rest
    if "--help" in words or "-h" in words:
        print(parser.format_help())
        return 0
    _refuse_unknown_flags(parser, words)
    arguments = vars(parser.parse_args(rest))
    known = parser._option_string_actions
    arguments[GIVEN] = {known[flag].dest for word in words if (flag := word.split("=", 1)[0]) in known}
    if arguments["json"]:
        with redirect_stdout(sys.stderr):  # whatever a verb or a library prints is a log
            outcome = _call(verbs[verb], arguments)
    else:
        outcome = _call(verbs[verb], arguments)
    _show(outcome, arguments["json"])
    if outcome.mistake:
        raise UsageError(outcome.mistake)
    if outcome.unkept:
        _tell(outcome.unkept)
        return 1
    return 0


def _tell(message: str) -> None:
    print("slimdet: " + printable(" ".join(message.split())), file=sys.stderr)


class _Lines(logging.Formatter):
    """What is logged, in its lines: names in it may be anybody's."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def run(verbs: Mapping[str, Callable[..., Outcome]], argv: Sequence[str] | None = None) -> int:
    """Run the verb that `argv` (default: the process's arguments) names and return the exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logger = logging.getLogger("slimdet")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        code = _dispatch(verbs, sys.argv[1:] if argv is None else argv)
        print(end="", flush=True)
        return code
    except KeyboardInterrupt as error:
        _tell("interrupted")
        return 128 + getattr(error, "signal", signal.SIGINT)
    except MemoryError:
        _tell("out of memory; take a smaller --batch or --imgsz, or fewer images at a time")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python's own flush at exit would fail once more
        return 141
    except SlimdetError as error:
        _tell(str(error))
        return 2
    except OSError as error:
        name = f" {error.filename!r}" if error.filename is not None else ""
        _tell(f"{error.strerror or error}{name}")
        return 2
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (missing := (error.name or "").split(".")[0]) in EXTRAS:
            _tell(f"{missing} is not installed; get it with: pip install 'slimdet[{EXTRAS[missing]}]'")
            return 2
        if os.environ.get("SLIMDET_DEBUG") == "1":
            import traceback

            traceback.print_exc()
        brief = textwrap.shorten(str(error) or "no message", 300)
        _tell(f"unexpected {type(error).__name__}: {brief} (SLIMDET_DEBUG=1 shows the traceback)")
        return 1
    finally:
        logger.removeHandler(handler)
