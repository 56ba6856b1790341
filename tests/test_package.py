"""What a wheel of the project installs: the product and its data, nothing of the laboratory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import apexstream
from apexstream.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = {
    "apexstream/__main__.py",
    "apexstream/py.typed",
    "engine/py.typed",
    "engine/weights/LICENSE-WEIGHTS",
    "engine/weights/ahmsa-3db.json",
    "engine/weights/ahmsa-3db.onnx",
    "engine/weights/judge.json",
    "engine/weights/judge.onnx",
    "stream/dashboard/index.html",
    "stream/dashboard/app.js",
    "stream/dashboard/style.css",
    "stream/py.typed",
    "training/page.html.j2",
    "training/py.typed",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as installed."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run(installed: Path, *arguments: str) -> str:
    """The output of a Python program that imports the wheel's content, started outside the checkout."""
    command, environment = [sys.executable, *arguments], {**os.environ, "PYTHONPATH": str(installed)}
    ran = subprocess.run(
        command, cwd=installed.parent, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_wheel_holds_the_product_and_its_data(installed: Path) -> None:
    files = files_below(installed)
    assert files >= SHIPPED
    for package, folder in {
        **{name: name for name in ("engine", "stream", "training")},
        "apexstream": "tools/apexstream",
    }.items():
        source = {f"{package}/{name}" for name in files_below(ROOT / folder) if name.endswith((".py", ".js"))}
        assert source - files == set()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in files)


def test_the_wheel_holds_nothing_else(installed: Path) -> None:
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"apexstream", "engine", "stream", "training"}
    assert [name for name in files_below(installed) if "test" in Path(name).name or name.startswith("training/records")] == []


def test_the_library_is_imported_from_the_wheel(installed: Path) -> None:
    script = "from apexstream import Pipeline, open_video; import engine; print(Pipeline, open_video, engine.__file__)"
    printed = run(installed, "-c", script)
    assert "engine.pipeline.Pipeline" in printed and "open_video" in printed
    assert printed.strip().endswith(str(installed / "engine" / "__init__.py"))


def test_the_command_runs_from_the_wheel(installed: Path) -> None:
    helped = run(installed, "-m", "apexstream", "--help")
    assert all(f"  {name} " in helped for name in COMMANDS)
    (metadata,) = installed.glob("*.dist-info")
    assert "apexstream = apexstream.cli:run" in (metadata / "entry_points.txt").read_text(encoding="utf-8")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'apexstream' has no attribute 'nothing'"):
        getattr(apexstream, "nothing")  # noqa: B009 - mypy knows that there is no such name
