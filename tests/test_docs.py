"""The documentation: commands parse, code compiles, links lead somewhere, reference pages are those of the source."""

import ast
import importlib
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import slimdet
from slimdet.cli.command import parser_of
from slimdet.cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "api.md")]  # built
MAKE = runpy.run_path(str(ROOT / "docs" / "make_api.py"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return BLOCK.sub("", text(page))


def commands(page: Path) -> Iterator[str]:
    """Every `slimdet ...` of a page: lines of code blocks, fenced or indented, and code within sentences."""
    fenced = [content for language, content in BLOCK.findall(text(page)) if language in ("", "bash", "console", "sh")]
    indented = re.findall(r"^    .*$", prose(page), re.M)
    for block in (*fenced, "\n".join(indented)):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().removeprefix("$ ").startswith("slimdet "):
                yield line.strip().removeprefix("$ ")
    for code in re.findall(r"`(slimdet\s[^`]+)`", re.sub(r"^    .*$", "", prose(page), flags=re.M)):
        yield " ".join(code.split())


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


COMMANDS = [(page.name, command) for page in PAGES for command in commands(page)]
LINKS = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))]
CODE = [(page.name, code) for page in PAGES for language, code in BLOCK.findall(text(page)) if language == "python"]


# ------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command}" for page, command in COMMANDS])
def test_every_command_parses(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)  # the reader's files
    verb, *words = shlex.split(command, comments=True)[1:]
    if verb in ("VERB", "--help", "--version"):
        return
    assert verb in VERBS
    if words and "--help" not in words:  # the verb alone is only talked about
        parser_of(VERBS[verb]).parse_args(words)


def test_commands_are_found_and_mistakes_in_them_too(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Say `slimdet\ndemo`:\n\n    slimdet val \\\n      --width 2\n\n```bash\n$ slimdet nonsense\n```\n")
    assert set(commands(page)) == {"slimdet demo", "slimdet val        --width 2", "slimdet nonsense"}
    assert len(COMMANDS) > 20
    with pytest.raises(ValueError, match="--width"):
        parser_of(VERBS["val"]).parse_args(["--width", "2"])


# ------------------------------------------------------------------------------------------------- reference


def test_the_api_page_has_every_public_name_once() -> None:
    page = MAKE["api"]()
    headings = re.findall(r"^### (.*)$", page, re.M)
    assert len(headings) == len(set(headings))
    assert headings[: len(slimdet.__all__)] == [f"slimdet.{name}" for name in slimdet.__all__]
    for part in ("core", "images", "data", "models", "bundle", "runtime", "evaluation", "training"):
        assert f"\n## slimdet.{part}\n" in page
    for heading in headings[len(slimdet.__all__) :]:
        module, _, name = heading.rpartition(".")
        assert getattr(importlib.import_module(module), name).__doc__, heading


@pytest.mark.parametrize(("page", "make"), [("verbs", "verbs"), ("widths", "recipes")])
def test_the_tables_of_flags_and_recipes_are_made_from_the_source(page: str, make: str) -> None:
    written = text(ROOT / "docs" / f"{page}.md")
    assert written == MAKE[make](written), "run: python docs/make_api.py"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_a_section_with_an_example_all_flags_and_its_json(verb: str) -> None:
    (section,) = re.findall(rf"^## {verb}\n(.*?)(?=^## |\Z)", text(ROOT / "docs" / "verbs.md"), re.S | re.M)
    assert f"    slimdet {verb}" in section
    assert "JSON: `" in section
    named = set(re.findall(r"^\| `(--[\w-]+)", section, re.M)) | {"--help", "--json"}
    words = [action.option_strings for action in parser_of(VERBS[verb])._actions if action.option_strings]
    assert named == {next(word for word in one if word.startswith("--")) for one in words}


# ------------------------------------------------------------------------------------------------- code and links


@pytest.mark.parametrize(("page", "code"), CODE)
def test_python_compiles_and_imports_what_there_is(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slimdet"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize(("page", "target"), LINKS, ids=[f"{page.name}: {target}" for page, target in LINKS])
def test_links_lead_somewhere(page: Path, target: str) -> None:
    if re.match(r"https?://|mailto:", target):
        return
    file, _, anchor = target.partition("#")
    place = page.parent / file if file else page
    assert place.exists(), f"{page.name} links to {target}"
    if anchor:
        headings = re.findall(r"^#+ (.*)$", prose(place), re.M)
        assert anchor in {slug(heading.replace("`", "")) for heading in headings}


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {target for page, target in LINKS if page == index}
    assert linked == {page.name for page in PAGES[1:] if page != index}
