"""The layout holds: imports go one way, only the page knows Gradio, and files stay small."""

import ast
from pathlib import Path

import pytest

from roleplay.environment import ROOT

# The first layers of roleplay/, lowest first: a module imports from lower layers, or from its own.
LAYERS = [
    {"errors", "flags", "settings"},
    {"persona", "prompt", "instructions"},
    {"packing", "models", "embedded", "adapters", "answers"},
]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


PAGE = [ROOT / "app.py", *sorted((ROOT / "page").rglob("*.py"))]
SOURCES = [path for folder in ("roleplay", "train", "dataset") for path in sorted((ROOT / folder).glob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_only_the_page_knows_gradio_and_nothing_imports_the_page(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"gradio", "app", "page", "tests", "benchmarks"}
    if path.parent.name == "roleplay":
        assert not roots & {"train", "dataset"}


@pytest.mark.parametrize("path", PAGE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_page_imports_the_library_alone(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"app", "train", "dataset", "tests", "benchmarks"}


@pytest.mark.parametrize("path", [path for path in PAGE if path.parent.parent == ROOT / "page"], ids=lambda p: p.stem)
def test_a_conversation_and_the_server_know_no_control(path):
    found = imports(path)
    assert not any(name.split(".")[0] == "gradio" for name in found)
    own = {name.removeprefix("page.").split(".")[0] for name in found if name.startswith("page.")}
    assert own <= {path.parent.name, "words"}
    if path.parent.name == "chat":
        assert not {name.split(".")[0] for name in found} & {"torch", "transformers"}


@pytest.mark.parametrize("path", PAGE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_functions_of_the_page_stay_small(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [arg.arg for arg in [*node.args.args, *node.args.kwonlyargs] if arg.arg not in ("self", "cls")]
            assert len(names) <= 5 and node.end_lineno - node.lineno < 60, node.name


@pytest.mark.parametrize("path", sorted((ROOT / "roleplay").glob("*.py")), ids=lambda path: path.name)
def test_imports_inside_the_library_go_one_way(path):
    everything = {path.stem for path in (ROOT / "roleplay").glob("*.py")}
    level = next((n for n, layer in enumerate(LAYERS) if path.stem in layer), len(LAYERS))
    allowed = set().union(*LAYERS[: level + 1]) if level < len(LAYERS) else everything
    assert {name.split(".")[1] for name in imports(path) if name.startswith("roleplay.")} <= allowed


def test_no_circles():
    graph = {
        path.stem: {name.split(".")[1] for name in imports(path) if name.startswith("roleplay.")}
        for path in (ROOT / "roleplay").glob("*.py")
    }
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


@pytest.mark.parametrize("path", [*PAGE, *SOURCES], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
