"""The house holds: rooms import one way only, only the page knows Gradio, and files, functions and calls stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from roleplay.environment import ROOT

# Lowest first: a room imports from itself and from the rooms before it. Rooms of one line know nothing of each other.
FLOORS = [
    ["roleplay"],
    ["roleplay.text"],
    ["roleplay.weights"],
    ["roleplay.adoption"],
    ["roleplay.engine"],
    ["roleplay.results"],
    ["train.learning", "page.words"],
    ["page.chat"],
    ["train.measuring"],
    ["train.publishing", "page.serving", "dataset"],
    ["train", "page"],
    ["app"],
    ["tests"],
    ["benchmarks"],
]
SOURCES = [
    ROOT / "app.py",
    *(
        p
        for room in ("page", "roleplay", "train", "dataset", "benchmarks")
        for p in sorted((ROOT / room).rglob("*.py"))
    ),
]
PRODUCT = [path for path in SOURCES if path.relative_to(ROOT).parts[0] != "benchmarks"]


def name_of(path: Path) -> str:
    """The dotted name of a module; that of its room for an `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in SOURCES}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def floor_of(module: str) -> int:
    """The floor of the room that holds a module: the longest name in `FLOORS` that begins it."""
    rooms = [(room, n) for n, floor in enumerate(FLOORS) for room in floor if f"{module}.".startswith(f"{room}.")]
    return max(rooms, key=lambda found: len(found[0]))[1]


def room_of(module: str) -> str:
    return max((r for floor in FLOORS for r in floor if f"{module}.".startswith(f"{r}.")), key=len)


def ours(path: Path) -> list[str]:
    roots = {"app", "page", "roleplay", "train", "dataset", "benchmarks", "tests"}
    return [name for name in imports(path) if name.split(".")[0] in roots]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_rooms_import_one_way(path: Path) -> None:
    own = name_of(path)
    for name in ours(path):
        downwards = floor_of(name) < floor_of(own)
        assert downwards or room_of(name) == room_of(own), f"{own} imports {name}"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_only_the_page_knows_gradio(path: Path) -> None:
    known = {name.split(".")[0] for name in imports(path)} & {"gradio", "spaces"}
    assert not known or room_of(name_of(path)) in ("page", "app")


def test_no_circles() -> None:
    graph = {name_of(path): set(ours(path)) - {name_of(path)} for path in SOURCES}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


@pytest.mark.parametrize("path", [p for p in PRODUCT if p.name == "__init__.py"], ids=name_of)
def test_every_room_says_what_it_knows(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_functions_and_calls_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
    for function in functions(path):
        assert (function.end_lineno or 0) - function.lineno < 60, f"{function.name} is longer than 60 lines"
        taken = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
        taken = [name for name in taken if name not in ("self", "cls", "ctx")]
        if function.name not in THEIRS:
            assert len(taken) <= 5, f"{function.name} takes {len(taken)}: {', '.join(taken)}"


# Signatures that a library calls: transformers' attention and cross-entropy, autograd.
THEIRS = {"shared_prefix_attention", "forward", "backward"}
