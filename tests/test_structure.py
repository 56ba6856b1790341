"""The shape of the project: who imports whom, what is tested where, what a module promises to export."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "apexstream": "tools/apexstream",
    "engine": "engine",
    "lab": "tools/lab",
    "stream": "stream",
    "training": "training",
}
"""Import package -> its folder."""
SOAK = "tests/soak"
"""Not a package of the product, but code that people run: held to the same rules."""
MAY_IMPORT = {
    "engine": {"engine"},
    "stream": {"stream", "engine"},
    "training": {"training", "engine"},
    "apexstream": {"apexstream", "training", "stream", "engine"},
    "lab": set(PACKAGES),
    "tests": {*PACKAGES, "tests"},
}
LAYERS = {
    "engine": ("pipeline", "recognition", "spotting", "activity", "registration", "faces"),
    "stream": ("fleet", "service", "review", "server", "recorded", "outlets", "analysis", "events", "sources"),
}
"""Folders and modules of a package in the order of their imports: none imports what stands to its left."""
NOT_IN_ENGINE = {"av", "asyncio", "threading", "websockets", "time", "datetime", "socket", "subprocess", "multiprocessing"}
HEAVY = {"torch", "cv2", "mediapipe", "ai_edge_litert", "onnxruntime", "av", "numpy", "matplotlib", "skimage"}
ONE_HOME = {
    "mediapipe": "engine/mesh/tasks.py",
    "ai_edge_litert": "engine/mesh/litert.py",
    "dlib": "engine/faces/detection.py",
    "paho": "stream/outlets/mqtt_connection.py",
    "pylsl": "stream/outlets/lsl.py",
    "ray": "tools/apexstream/cluster/ray_process.py",
    "redis": "stream/outlets/redis_connection.py",
}
"""Libraries that one module alone stands in front of; the probes of `apexstream doctor` and the receivers of soaks aside."""


def sources() -> list[Path]:
    folders = [*PACKAGES.values(), SOAK]
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py") if not path.name.startswith("test_"))


def package_of(path: Path) -> str:
    """The top-level import package of a source."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "tools" else parts[0]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of every import, wherever it stands; relative ones made absolute."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = [*base, *([node.module] if node.module else [])]
            yield from ((".".join([*module, alias.name]), node.lineno) for alias in node.names)


def test_imports_go_one_way() -> None:
    for path in sources():
        package = package_of(path)
        for name, line in imports(path):
            top, place = name.split(".")[0], f"{relative(path)}:{line}"
            assert top not in MAY_IMPORT or top in MAY_IMPORT[package], f"{place} imports {name}"
            if package == "engine":
                assert top not in NOT_IN_ENGINE, f"{place}: engine does no I/O, starts no thread, reads no clock"
            if top in ONE_HOME and package != "tests" and path.name != "probes.py":
                assert relative(path) == ONE_HOME[top], f"{place}: only {ONE_HOME[top]} imports {top}"


def inner_imports(package: str) -> dict[str, set[str]]:
    """Who imports whom within a package: a folder is one node, and so is a module beside the folders."""
    graph: dict[str, set[str]] = {}
    for path in (ROOT / PACKAGES[package]).rglob("*.py"):
        node = path.relative_to(ROOT / PACKAGES[package]).with_suffix("").parts[0]
        names = (name.split(".") for name, _ in imports(path))
        graph.setdefault(node, set()).update(parts[1] for parts in names if parts[0] == package and len(parts) > 1)
        graph[node].discard(node)
    return graph


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_between_the_folders_of_a_package(package: str) -> None:
    found = inner_imports(package)
    graph = {node: others & found.keys() for node, others in found.items()}
    graph.pop("__init__", None)  # exports what others define
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"{package}: {' -> '.join(error.args[1])}")
    for left, right in pairwise(LAYERS.get(package, ())):
        assert left in order and right in order, f"{package} has no {left} or no {right}"
    for left, right in combinations(LAYERS.get(package, ()), 2):
        assert left not in graph[right], f"{package}.{right} imports {left}"


def mirrored(path: Path) -> list[Path]:
    """Where the test of a source may lie: tests/<package>/test_<module>.py, or, for the modules of an inner package that are
    one subject with one front (an operator, the runtimes), the test of that package."""
    inside = path.relative_to(ROOT).parent
    folder = ROOT / inside if inside.parts[0] == "tests" else ROOT / "tests" / inside
    places = [folder / f"test_{path.stem}.py"]
    if path.name in {"__init__.py", "__main__.py"} or folder.parent.parent != ROOT:
        places += [folder / f"test_{folder.name}.py", folder.parent / f"test_{folder.name}.py"]
    return places


def has_code(path: Path) -> bool:
    """Whether a module defines any function; a top package's own file, which only exports, is tested here."""
    if path.name == "__init__.py" and path.parent.relative_to(ROOT).as_posix() in PACKAGES.values():
        return False
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree_of(path)))


def test_every_source_has_its_test_file() -> None:
    for path in filter(has_code, sources()):
        assert any(place.is_file() for place in mirrored(path)), f"{relative(path)} has no {relative(mirrored(path)[0])}"


def test_every_test_file_has_its_source_and_a_test() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        assert "def test_" in path.read_text(encoding="utf-8"), f"{relative(path)} tests nothing"
        inside = path.relative_to(ROOT / "tests")
        if len(inside.parts) == 1:
            continue
        subject = inside.stem.removeprefix("test_")
        folder = (ROOT / "tests" if inside.parts[0] == "soak" else ROOT) / inside.parent
        candidates = (folder / f"{subject}.py", folder / f"{subject}.sh", folder / subject, folder.parent / subject)
        assert any(candidate.exists() for candidate in candidates), f"{relative(path)} tests no module of that name"


@pytest.mark.parametrize("package", PACKAGES)
def test_exports_exist(package: str) -> None:
    for path in (ROOT / PACKAGES[package]).rglob("*.py"):
        tree = tree_of(path)
        listed = [n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
        if not listed:
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[1:] if parts[0] == "tools" else parts
        module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        for name in ast.literal_eval(listed[0].value):
            assert hasattr(module, name), f"{relative(path)} lists {name}, which it does not have"


def test_the_promised_names() -> None:
    from engine import Pipeline
    from engine.models import build
    from engine.ops.strain import strain
    from engine.ops.tvl1 import tvl1
    from engine.runtime import load

    assert all(callable(name) for name in (Pipeline.from_config, Pipeline.feed, Pipeline.flush, build, strain, tvl1, load))


def test_the_command_line_imports_nothing_heavy() -> None:
    script = "import sys, apexstream.cli; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert not HEAVY & set(loaded)


def test_sources_are_whole() -> None:
    for path in sources():
        text = path.read_text(encoding="utf-8")
        for left in ("TO" + "DO", "FIX" + "ME", "XX" + "X", "breakpoint" + "("):
            assert left not in text, f"{relative(path)} has a leftover {left}"
        assert ast.get_docstring(tree_of(path)), f"{relative(path)} does not say what it is"
        future = "from __future__ import annotations"
        assert path.name == "__init__.py" or future in text or not has_code(path), f"{relative(path)} lacks {future}"


def test_nothing_names_a_path_of_one_machine() -> None:
    """Neither code nor documentation nor configuration leans on where it happened to be written."""
    texts = [path for folder in (*PACKAGES.values(), "tests", "docs", "configs") for path in (ROOT / folder).rglob("*")]
    texts += [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".yaml")]
    roots = tuple(f"/{name}/" for name in ("home", "root", "work", "Users"))
    for path in texts:
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".json", ".sh"):
            text = path.read_text(encoding="utf-8")
            assert not any(root in text for root in roots), f"{relative(path)} names a path of one machine"
