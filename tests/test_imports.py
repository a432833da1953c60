"""Imports go downward: what may know what, and what must be importable without torch."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import slimdet

ROOT = Path(slimdet.__file__).parent

# From top to bottom. A module may import its own layer, as long as no circle arises, and the layers below.
# A new file belongs into the lowest layer that it can live in; `data.*` and `seed.*` stand for whole packages.
LAYERS = {
    "command line": "__main__ cli command",
    "demo": "demo",
    "verbs": "costs conversion training calibration starting validation prediction profiling extraction export.* "
    "doctor distillation gradients sorting run_log settings seed.*",
    "runtime": "runtime.*",
    "bundle": "bundle architecture image_size",
    "detectors": "detectors backbones weights "
    "seed.detector seed.rpn seed.roi_heads seed.pooler seed.anchors seed.boxes seed.masks seed.transform "
    "seed.config seed.schema seed.literals",
    "core": "slimmable sliced tracing scopes",
    "results": "evaluation detections coco_results ground_truth report drawing",
    "data": "data.* images",
    "base": "assets.* manifest devices flags widths files errors __init__",
}
ORDER = list(LAYERS)

LAZY = {  # names of slimdet itself
    "slim": "slimmable",
    "Slimmable": "slimmable",
    "load": "bundle",
    "save": "bundle",
    "Runtime": "runtime.detector",
    "Result": "runtime.result",
}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


FILES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


def entry(module: str) -> str:
    """What places a module: itself where it is listed, otherwise its package."""
    listed = " ".join(LAYERS.values()).split()
    return module if module in listed or "." not in module else f"{module.split('.')[0]}.*"


PLACES = {name: layer for layer, names in LAYERS.items() for name in names.split()}


def imported(file: Path) -> list[tuple[str, str]]:
    """All (module, name) pairs that a file imports, wherever in it; not what only type checkers see."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write 'from slimdet...', not a relative import"
            found += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "slimdet" and node.attr in LAZY:
            found.append((f"slimdet.{LAZY[node.attr]}", ""))
    return found


def own_imports(module: str) -> set[str]:
    """The modules of slimdet that a module imports."""
    needed = set()
    for source, name in imported(FILES[module]):
        if source.split(".")[0] != "slimdet":
            continue
        inside = source.removeprefix("slimdet").removeprefix(".")
        candidates = (f"{inside}.{name}".strip("."), inside, f"{inside}.__init__".strip("."))
        if not inside and name in LAZY:
            candidates = (LAZY[name],)
        needed.add(next(candidate for candidate in candidates if candidate in FILES))
    return needed


GRAPH = {module: own_imports(module) for module in FILES}


def test_every_file_has_its_layer() -> None:
    assert {entry(module) for module in FILES} == set(PLACES)
    assert sum(len(names.split()) for names in LAYERS.values()) == len(PLACES), "a module is in two layers"


@pytest.mark.parametrize("module", FILES)
def test_imports_go_downward(module: str) -> None:
    place = ORDER.index(PLACES[entry(module)])
    upward = {other for other in GRAPH[module] if ORDER.index(PLACES[entry(other)]) < place}
    assert not upward, f"{module} ({ORDER[place]}) imports from above: {upward}"


def test_no_cycles() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def test_the_core_knows_torch_and_nothing_else() -> None:
    for module in LAYERS["core"].split():
        foreign = {source.split(".")[0] for source, _ in imported(FILES[module])} - set(sys.stdlib_module_names)
        assert foreign <= {"torch", "torchvision", "slimdet"}, module
    assert GRAPH["slimmable"] <= {"scopes", "sliced", "tracing", "widths", "errors"}
    assert not any(source.startswith("torchvision.models") for source, _ in imported(FILES["slimmable"]))


LIGHT = "import sys; heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'rich', 'matplotlib', 'yaml'} & set(sys.modules)"


@pytest.mark.parametrize(
    "code",
    [
        "import slimdet",
        "from slimdet import cli; cli.main(['--help'])",
        # Every verb's help, from its function.
        "from slimdet import cli; [cli.main([verb, '--help']) for verb in cli.VERBS]",
        "from slimdet import doctor, files, errors",
    ],
)
def test_imported_without_anything_heavy(code: str) -> None:
    check = f"{code}; {LIGHT}; sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_reading_images_needs_no_torch() -> None:
    check = f"import slimdet.images; {LIGHT}; sys.exit('torch' in heavy)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_the_names_of_the_package() -> None:
    assert set(LAZY) == set(slimdet.__all__)
    for name, module in LAZY.items():
        assert getattr(slimdet, name).__module__ == f"slimdet.{module}"
    with pytest.raises(AttributeError, match="no attribute 'slam'"):
        slimdet.slam  # noqa: B018
