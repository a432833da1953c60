"""Writes docs/api.md from the docstrings, and the tables of flags in docs/verbs.md from the parsers.

    python docs/make_api.py

Sources are read, not imported, so that signatures look as they are written. tests/test_docs.py holds the pages to it.
"""

import argparse
import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from slimdet.cli.command import parser_of
from slimdet.cli.verbs import VERBS

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src" / "slimdet"

# What others may rely on, by subject and module.
PUBLIC: dict[str, dict[str, str]] = {
    "Slimming": {"slimmable": "slim Slimmable", "scopes": "Scope", "widths": "WidthRange read_plan"},
    "Bundles": {"bundle": "save load"},
    "Detectors": {"detectors": "faster_rcnn mask_rcnn build", "backbones": "trunk classifier"},
    "Data": {
        "data.config": "read_data_config DataConfig Split",
        "data.coco": "CocoDataset",
        "data.loader": "loader",
        "data.transforms": "augmentation",
        "data.check": "check Fault",
        "data.convert": "to_coco",
        "images": "read_image image_size",
    },
    "Training": {
        "settings": "TrainSettings learning_rate",
        "training": "train resume accumulate_gradients",
        "calibration": "calibrate collect_statistics calibration_batches Calibration",
        "distillation": "watch distillation_losses",
        "gradients": "divide_by_users",
        "sorting": "sort_channels sort_detector",
    },
    "Evaluation": {
        "validation": "validate_bundle validate Validation",
        "evaluation": "evaluate accumulate Evaluation confusion_matrix",
        "detections": "detect to_coco check_classes",
    },
    "Running": {"runtime.detector": "Runtime", "runtime.result": "Result"},
    "Prediction": {"prediction": "predict Predictions find_images", "drawing": "draw side_by_side"},
    "Costs, extraction, export": {
        "costs": "costs",
        "profiling": "profile count_macs",
        "extraction": "extract",
        "export.engines": "export",
    },
    "Errors": {
        "errors": "SlimdetError WidthError UnknownLayerError SharingError BundleError WeightsError DataError "
        "ImageError ConfigError"
    },
}
SHORT = {"slim", "Slimmable", "save", "load", "Runtime", "Result"}  # names of `slimdet` itself

INTRODUCTION = """# Python API

Written from the docstrings by `docs/make_api.py`. Six names are those of the package itself (`slimdet.Runtime`,
`slimdet.Result`, `slimdet.slim`, `slimdet.Slimmable`, `slimdet.save`, `slimdet.load`); the others are imported from
their modules. `import slimdet` needs no torch; the last four of these names import it when they are first used.
"""


def api() -> str:
    """The whole of docs/api.md."""
    pages = [INTRODUCTION]
    for subject, modules in PUBLIC.items():
        pages.append(f"## {subject}\n")
        for module, names in modules.items():
            source = (SOURCE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
            nodes = {node.name: node for node in ast.parse(source).body if isinstance(node, Documented)}
            for name in names.split():
                pages.append(f"### {title(module, name)}\n")
                pages += described(nodes[name], source.splitlines())
    return "\n".join(pages)


Documented = ast.FunctionDef | ast.ClassDef


def title(module: str, name: str) -> str:
    return f"slimdet.{name}" if name in SHORT else f"slimdet.{module}.{name}"


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
        name = " ".join([*action.option_strings[-1:], metavar + (" ..." if action.nargs == "+" else "")]).strip()
        need = " (required)" if action.required else ""
        rows.append(f"| `{name}` | {(action.help or '').replace('%%', '%')}{need} |")
    return "\n".join(rows if len(rows) > 2 else ["No flags but those that all verbs have."]) + "\n"


def main() -> None:
    """Write both pages."""
    (DOCS / "api.md").write_text(api(), encoding="utf-8")
    page = DOCS / "verbs.md"
    page.write_text(verbs(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
