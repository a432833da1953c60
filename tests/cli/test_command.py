"""From functions to commands: flags, help, exit codes, on verbs made for these tests."""

import json
import os
import subprocess
import sys
from collections.abc import Set
from pathlib import Path
from typing import Annotated, Literal

import pytest
from rich.table import Table

from slimdet.cli.command import Outcome, run
from slimdet.cli.flags import Count, Existing, Positive, Width, WidthOrAll, Widths
from slimdet.errors import WidthError


def paint(
    *walls: Annotated[str, "what to paint"],
    colour: Annotated[Literal["red", "green"], "the colour"],
    coats: Annotated[Count, "layers, 100% covering"] = 2,
    widths: Annotated[Widths, "brushes"] = (0.5, 1.0),
    width: Annotated[WidthOrAll, "one brush, or all"] = None,
    drying_hours: Annotated[Positive | None, "time between coats"] = None,
    dry: Annotated[bool, "only say what would be done"] = False,
    shine: Annotated[bool, "varnish"] = True,
) -> Outcome:
    """Paint walls.

    Example:
        slimdet paint kitchen --colour red
    """
    print("mixing")
    return Outcome({**locals(), "walls": list(walls), "widths": list(widths)}, f"{len(walls)} [walls]")


def copy(source: Annotated[Existing, "what"], target: Annotated[str, "where"] = "there", /) -> Outcome:
    """Copy a file."""
    return Outcome({"source": source.name, "target": target})


def fail(*, how: Annotated[str, "kind"]) -> Outcome:
    """Fail."""
    match how:
        case "width":
            raise WidthError("width 0.6 is not one of 0.5, 1.0;\nadd it")
        case "extra":
            import slimdet_tests_have_no_such_module  # noqa: F401 # pyright: ignore
        case "torch":
            raise ModuleNotFoundError("No module named 'torch._C'", name="torch._C")
        case "cv2":
            raise ModuleNotFoundError("No module named 'cv2'", name="cv2")
        case "file":
            Path("/no/such/file").read_text()
        case "bug":
            raise RuntimeError("the first line\nthe second")
        case "interrupt":
            raise KeyboardInterrupt
        case "terminate":
            error = KeyboardInterrupt()
            error.signal = 15  # type: ignore[attr-defined]  # as slimdet.training.safety.stopping.Stopped has it
            raise error
        case "partly":
            return Outcome({"done": 1}, "done", "1 of 2 files could not be read")
        case "nan":
            return Outcome({"AP": float("nan")})
    return Outcome({}, Table("a", "b"))


VERBS = {verb.__name__: verb for verb in (paint, copy, fail)}


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What a failed command says: one line on stderr, nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("slimdet: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("slimdet: ").rstrip()


def test_arguments_become_flags(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "paint a b --colour green --coats 3 --widths 0.25,1 --width .33333 --drying-hours 1e1 --dry --no-shine --json"
    )
    assert run(VERBS, words.split()) == 0
    out, err = capsys.readouterr()
    assert err == "mixing\n"
    assert json.loads(out) == {
        "walls": ["a", "b"],
        "colour": "green",
        "coats": 3,
        "widths": [0.25, 1.0],
        "width": 0.3333,
        "drying_hours": 10.0,
        "dry": True,
        "shine": False,
    }


def test_defaults_are_those_of_the_function(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(VERBS, ["paint", "a", "--colour=red", "--json", "--width", "all"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["coats"], found["widths"], found["width"]) == (2, [0.5, 1.0], None)
    assert (found["drying_hours"], found["dry"], found["shine"]) == (None, False, True)


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(VERBS, ["paint", "a", "--colour", "red"]) == 0
    assert capsys.readouterr().out == "mixing\n1 [walls]\n"
    assert run(VERBS, ["fail", "--how", "not"]) == 0
    assert "a" in capsys.readouterr().out


def test_positional_arguments(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "--odd").touch()
    assert run(VERBS, ["copy", "--json", "--", str(tmp_path / "--odd"), "--help"]) == 0
    assert json.loads(capsys.readouterr().out) == {"source": "--odd", "target": "--help"}
    assert run(VERBS, ["copy", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "there"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert run(VERBS, words) == 0
        assert "paint      Paint walls." in capsys.readouterr().out
    assert run(VERBS, ["paint", "--nonsense", "--help"]) == 0
    out = capsys.readouterr().out
    for part in ("slimdet paint kitchen --colour red", "{red,green}", "100% covering (default 2)", "(default 0.5,1.0)"):
        assert part in out
    assert "(default False)" not in out
    assert run(VERBS, ["--version"]) == 0
    assert capsys.readouterr().out.startswith("slimdet 0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pain", "unknown verb 'pain'; did you mean paint?"),
        ("PAINT", "did you mean paint?"),
        ("xyz", "the verbs are paint, copy, fail"),
        ("--json paint", "write 'slimdet VERB --json'"),
        ("paint a --color red", "unknown flag --color; did you mean --colour?"),
        ("paint a --colour red --drying_hours 3", "did you mean --drying-hours?"),
        ("paint a --colour red --coat 3", "did you mean --coats?"),  # no abbreviations
        ("paint a --colour red -x", "unknown flag -x"),
        ("paint a --colour red --coats", "--coats: expected one argument"),
        ("paint a --colour reed", "'reed' is not one of red, green; did you mean red?"),
        ("paint a --colour red --coats 0", "--coats: '0' is not a whole number of at least 1"),
        ("paint a --colour red --coats -1", "'-1' is not a whole number"),
        ("paint a --colour red --coats 1.5", "'1.5' is not a whole number"),
        ("paint a --colour red --widths 0.5,x", "'x' is not a number of at least 0.0001 and at most 1"),
        ("paint a --colour red --widths 0.5,,1", "'' is not a number"),
        ("paint a --colour red --width 1.5", "'1.5' is not a number of at least 0.0001 and at most 1, nor 'all'"),
        ("paint a --colour red --width nan", "'nan' is not a number"),
        ("paint a --colour red --drying-hours 0", "'0' is not a number above 0"),
        ("paint a --colour red --drying-hours inf", "'inf' is not a number above 0"),
        ("paint a --colour red --dry=yes", "--dry"),
        ("paint --colour red", "required: WALLS"),
        ("paint a", "required: --colour"),
        ("copy", "required: SOURCE"),
        ("copy pyproject.tom", "there is no file or folder 'pyproject.tom'; did you mean pyproject.toml?"),
        ("copy no/such/file", "there is no file or folder 'no/such/file'"),
        ("copy pyproject.toml b c", "unrecognized arguments: c"),
        ("fail --how width", "width 0.6 is not one of 0.5, 1.0; add it"),
        ("fail --how file", "No such file or directory '/no/such/file'"),
        ("fail --how torch", "torch is not installed; get it with: pip install 'slimdet[train]'"),
        ("fail --how cv2", "cv2 is not installed; get it with: pip install 'slimdet[original]'"),
    ],
)
def test_a_users_mistake_is_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert run(VERBS, words.split()) == 2
    assert message in complaint(capsys)


@pytest.mark.parametrize("how", ["bug", "nan", "extra"])
def test_our_fault(how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIMDET_DEBUG", raising=False)
    words = ["fail", "--how", how, "--json"]
    assert run(VERBS, words) == 1
    assert "SLIMDET_DEBUG=1 shows the traceback" in complaint(capsys)
    monkeypatch.setenv("SLIMDET_DEBUG", "1")
    assert run(VERBS, words) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(VERBS, ["fail", "--how", "interrupt"]) == 130
    assert complaint(capsys) == "interrupted"
    assert run(VERBS, ["fail", "--how", "terminate"]) == 143
    assert complaint(capsys) == "interrupted"


def test_a_verb_may_know_which_flags_were_written(capsys: pytest.CaptureFixture[str]) -> None:
    def lengthen(*, run_time: int = 12, loud: bool = True, given: Set[str] = frozenset()) -> Outcome:
        """Lengthen."""
        return Outcome(None, ",".join(sorted(given)))

    for words, expected in (
        ([], ""),
        (["--run-time=12"], "run_time"),  # its default, but written
        (["--no-loud", "--run-time", "3"], "loud,run_time"),
    ):
        assert run({"lengthen": lengthen}, ["lengthen", *words]) == 0
        assert capsys.readouterr().out.strip() == expected
    assert run({"lengthen": lengthen}, ["lengthen", "--given", "x"]) == 2
    assert "unknown flag --given" in capsys.readouterr().err


def test_partly_done_prints_its_results_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(VERBS, ["fail", "--how", "partly", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"done": 1}
    assert err == "slimdet: 1 of 2 files could not be read\n"


@pytest.mark.parametrize("words", [["--help"], ["profile", "--help"]])
def test_a_reader_that_goes_away_is_no_traceback(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "slimdet", *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_width_is_named_as_it_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    def show(*, width: Annotated[Width, "w"]) -> Outcome:
        """Show."""
        return Outcome({"width": width})

    assert run({"show": show}, ["show", "--width", "0.66666666", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"width": 0.6667}
