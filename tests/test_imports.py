"""The order of the house: what may import what, and what must be importable without torch."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import slimdet

ROOT = Path(slimdet.__file__).parent

# The ground floor: files in `slimdet` itself. Everybody may import them; they import one another alone.
GROUND = "errors messages files widths devices __init__"
# From top to bottom: a wing may import itself and the wings before it, never one behind it.
WINGS = [
    "assets",
    "core",
    "images",
    "data",
    "models",
    "bundle",
    "control",
    "runtime",
    "evaluation",
    "training",
    "exporting",
    "report",
    "search",
    "benchmarking",
    "serving",
    "streaming",
    "jobs",
    "original",
    "cli",
]
# The exceptions, each an arrow from a file to a wing.
BACKWARD = {("models.architecture", "original")}  # builds the original's detector, by an import where it is needed
FORBIDDEN = {"original": set(WINGS[WINGS.index("exporting") : WINGS.index("original")])}  # it uses training, evaluation
NO_TORCH = [
    "assets",
    "images",
    "models.kinds",
    "bundle.manifest",
    "bundle.card",
    "runtime",
    "control",
    "benchmarking.benchmark",
    "serving",
]  # but runtime.torch_engine, behind a lazy import
RUNTIME_ONLY = {"serving": {"runtime", "control"}, "streaming": {"runtime", "control"}, "jobs": {"runtime", "control"}}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


FILES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


def wing(module: str) -> str:
    """The wing a module lives in; empty for the ground floor."""
    return module.split(".")[0] if "." in module else ""


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
    return found


def own_imports(module: str) -> set[str]:
    """The modules of slimdet that a module imports."""
    needed = set()
    for source, name in imported(FILES[module]):
        if source.split(".")[0] != "slimdet":
            continue
        inside = source.removeprefix("slimdet").removeprefix(".")
        candidates = (f"{inside}.{name}".strip("."), inside, f"{inside}.__init__".strip("."))
        needed.add(next(candidate for candidate in candidates if candidate in FILES))
    return needed - {module}


GRAPH = {module: own_imports(module) for module in FILES}


def test_every_file_has_its_place() -> None:
    assert {module for module in FILES if not wing(module)} == {*GROUND.split(), "__main__"}
    assert {wing(module) for module in FILES} - {""} <= set(WINGS)


@pytest.mark.parametrize("module", FILES)
def test_imports_go_to_the_wings_before(module: str) -> None:
    here = wing(module)
    allowed = {"", here} | set(WINGS[: WINGS.index(here)] if here else WINGS if module == "__main__" else ())
    allowed -= FORBIDDEN.get(here, set())
    wrong = {other for other in GRAPH[module] if wing(other) not in allowed and (module, wing(other)) not in BACKWARD}
    assert not wrong, f"{module} imports {wrong}"
    if here in RUNTIME_ONLY:  # not even what is before: images and bundles are theirs through the runtime
        assert {wing(other) for other in GRAPH[module]} <= {"", here, "images", *RUNTIME_ONLY[here]}, module


def test_no_cycles() -> None:
    arrows = {m: {o for o in others if (m, wing(o)) not in BACKWARD} for m, others in GRAPH.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def test_the_core_knows_torch_and_nothing_else() -> None:
    for module in (name for name in FILES if wing(name) == "core"):
        sources = {source for source, _ in imported(FILES[module])}
        assert {source.split(".")[0] for source in sources} - set(sys.stdlib_module_names) <= {
            "torch",
            "torchvision",
            "slimdet",
        }, module
        assert not any(source.startswith("torchvision.models") for source in sources), module


LIGHT = "import sys; heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'rich', 'matplotlib', 'yaml'} & set(sys.modules)"


@pytest.mark.parametrize(
    "code",
    [
        "import slimdet; dir(slimdet)",
        "from slimdet.cli import verbs; verbs.main(['--help'])",
        # Every verb's help, from its function.
        "from slimdet.cli import verbs; [verbs.main([verb, '--help']) for verb in verbs.VERBS]",
        "from slimdet import devices, errors, files, widths",
        "from slimdet.cli import doctor",
    ],
)
def test_imported_without_anything_heavy(code: str) -> None:
    check = f"{code}; {LIGHT}; sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_runs_needs_no_torch() -> None:
    modules = [name for name in FILES if any(name == light or name.startswith(light + ".") for light in NO_TORCH)]
    modules = [name.removesuffix(".__init__") for name in modules if name.split(".")[-1] not in ("torch_engine",)]
    imports = "; ".join(f"import slimdet.{name}" for name in modules if name != "runtime.openvino_engine")
    check = f"{imports}; {LIGHT}; sys.exit(str(heavy) if 'torch' in heavy else 0)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_statistics_need_neither_tables_nor_evaluation() -> None:
    find = "import slimdet.training.statistics, sys; heavy = {'rich', 'pycocotools'} & set(sys.modules)"
    check = f"{find}; sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert not done.stderr, done.stderr


def test_the_names_of_the_package() -> None:
    for name in slimdet.__all__:
        assert getattr(slimdet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'slam'"):
        slimdet.slam  # noqa: B018
