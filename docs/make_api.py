"""Writes docs/api.md from the docstrings, the tables of flags in docs/verbs.md from the parsers, and the table of
recipes in docs/widths.md from the recipes.

    make docs        or: python docs/make_api.py

Sources are read, not imported, so that signatures look as they are written. docs/api.md is not tracked.
"""

import argparse
import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import slimdet
from slimdet.cli.command import parser_of
from slimdet.cli.verbs import VERBS
from slimdet.models.builders import NECKS
from slimdet.training.recipes import DECIDES, Task, by_recipe
from slimdet.training.settings import RecipeName, TrainSettings

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src" / "slimdet"

# The ground floor and the wings, in their order; the commands and the original system have pages of their own.
PARTS = (
    *("errors", "widths", "devices", "core", "images", "data", "models", "bundle", "runtime", "control", "evaluation"),
    *("training", "exporting", "report", "search", "benchmarking", "serving", "streaming", "jobs"),
)

INTRODUCTION = """# Python API

Written from the docstrings by `make docs`. The names of the package itself come first; `import slimdet` needs no torch,
the names that do import it when they are first used. Behind them, wing by wing, is what they are built of.
"""


def api() -> str:
    """The whole of docs/api.md."""
    pages = [INTRODUCTION, "## slimdet\n"]
    top = {name: getattr(slimdet, name) for name in slimdet.__all__}
    homes = {f"{value.__module__}.{value.__name__}": name for name, value in top.items()}
    sources = {path: read(path) for part in PARTS for path in modules(part)}
    everything = {
        f"{module(path)}.{name}": list(described(node, lines))
        for path, (nodes, lines) in sources.items()
        for name, node in nodes.items()
    }
    for home, name in homes.items():
        pages += [f"### slimdet.{name}\n", *everything.pop(home)]
    for part in PARTS:
        names = [name for name in everything if name.startswith(f"slimdet.{part}.")]
        if names:
            pages += [f"## slimdet.{part}\n", *about(part)]
        for name in names:
            pages += [f"### {name}\n", *everything[name]]
    return "\n".join(pages)


def modules(part: str) -> list[Path]:
    """The files of a wing, or of one on the ground floor."""
    return sorted((SOURCE / part).glob("*.py")) or [path for path in [SOURCE / f"{part}.py"] if path.exists()]


def module(path: Path) -> str:
    return ".".join(["slimdet", *path.relative_to(SOURCE).with_suffix("").parts])


def read(path: Path) -> tuple[dict[str, "Documented"], list[str]]:
    """A file's public functions and classes with a docstring, by name, and its lines."""
    source = path.read_text(encoding="utf-8")
    nodes = (node for node in ast.parse(source).body if isinstance(node, Documented))
    public = {node.name: node for node in nodes if node.name[0] != "_" and ast.get_docstring(node)}
    return public, source.splitlines()


def about(part: str) -> list[str]:
    path = SOURCE / part / "__init__.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else None
    return [f"{prose(text)}\n"] if text else []


Documented = ast.FunctionDef | ast.ClassDef


def described(node: Documented, lines: list[str]) -> Iterator[str]:
    """A function, or a class with its fields and public methods, as pieces of Markdown."""
    yield f"```python\n{signature(node, lines)}\n```\n"
    yield from markdown(ast.get_docstring(node) or "")
    for part in node.body if isinstance(node, ast.ClassDef) else ():
        private = isinstance(part, ast.FunctionDef) and re.match(r"_[^_]", part.name)
        if isinstance(part, ast.FunctionDef) and not private and ast.get_docstring(part):
            yield f"#### {node.name}.{part.name}\n"
            yield from described(part, lines)


def signature(node: Documented, lines: list[str]) -> str:
    """The source up to the docstring; of a dataclass, the fields too."""
    first = min(part.lineno for part in (node, *node.decorator_list))
    head = lines[first - 1 : node.body[0].lineno - 1]
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    if isinstance(node, ast.ClassDef) and any("dataclass" in line for line in head):
        head += lines[fields[0].lineno - 1 : fields[-1].end_lineno]
    return inspect.cleandoc("\n".join(head)).removesuffix(":")


def markdown(docstring: str) -> Iterator[str]:
    """A docstring's paragraphs, and its sections (Args, Returns, Raises, Attributes) as lists."""
    for paragraph in re.split(r"\n\n(?=\S)", docstring):
        heading, _, body = paragraph.partition("\n")
        if heading not in ("Args:", "Returns:", "Raises:", "Attributes:"):
            yield prose(paragraph) + "\n"
            continue
        body = inspect.cleandoc(body)
        if heading != "Returns:":
            body = re.sub(r"^(\S[^:\n]*):", r"* `\1`:", body, flags=re.M)
        yield f"**{heading[:-1]}**\n\n{prose(body)}\n"


def prose(text: str) -> str:
    """Text whose angle brackets are not taken for HTML."""
    return re.sub(r"<(?=\w+>)", r"\\<", text)


# ------------------------------------------------------------------------------------------------- flags


def verbs(page: str) -> str:
    """docs/verbs.md with every table of flags written anew: `<!-- flags: VERB -->` ... `<!-- end -->`."""
    mark = re.compile(r"(<!-- flags: (\w+) -->\n).*?(<!-- end -->)", re.S)
    return mark.sub(lambda found: found[1] + flags(parser_of(VERBS[found[2]])) + found[3], page)


def flags(parser: argparse.ArgumentParser) -> str:
    """The table of a verb's flags, without --help and --json, which all have."""
    rows = ["| flag | |", "| --- | --- |"]
    for action in parser._actions:
        if {"--help", "--json"} & set(action.option_strings):
            continue
        metavar = "" if action.nargs == 0 else str(action.metavar)
        words = [", ".join(word for word in action.option_strings if word.startswith("--"))]
        name = " ".join([*filter(None, words), metavar + (" ..." if action.nargs == "+" else "")]).strip()
        need = " (required)" if action.required else ""
        rows.append(f"| `{name}` | {(action.help or '').replace('%%', '%')}{need} |")
    return "\n".join(rows if len(rows) > 2 else ["No flags but those that all verbs have."]) + "\n"


# ------------------------------------------------------------------------------------------------- recipes

TRAININGS: dict[str, tuple[RecipeName, Task]] = {
    "`default`, 300 images, CPU": ("default", Task(300)),
    "`default`, 20,000 images, GPU of 24 GB": ("default", Task(20_000, gpu=True, memory_gb=24)),
    "`fast`, 300 images, CPU": ("fast", Task(300)),
    "`paper`": ("paper", Task(300)),
}


def recipes(page: str) -> str:
    """docs/widths.md with the table of recipes written anew: `<!-- recipes -->` ... `<!-- end -->`."""
    decided = [by_recipe(name, task, {}) for name, task in TRAININGS.values()]
    rows = [f"| flag | {' | '.join(TRAININGS)} |", "| --- " * (1 + len(TRAININGS)) + "|"]
    for name in DECIDES:
        values = [value_of(settings, name) for settings in decided]
        rows.append(f"| `--{name.replace('_', '-')}` | {' | '.join(values)} |")
    table = "\n".join(rows)
    return re.sub(r"(<!-- recipes -->\n).*?(<!-- end -->)", rf"\g<1>{table}\n\g<2>", page, flags=re.S)


def value_of(settings: TrainSettings, name: str) -> str:
    """A value as one would write it, and what is meant where there is none."""
    meant = {"imgsz": NECKS[settings.neck].imgsz[0], "lr": settings.peak_lr, "weight_decay": settings.decay}
    value = getattr(settings, name)
    value = meant[name] if value is None else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Write the pages."""
    (DOCS / "api.md").write_text(api(), encoding="utf-8")
    for name, made in (("verbs.md", verbs), ("widths.md", recipes)):
        page = DOCS / name
        page.write_text(made(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
