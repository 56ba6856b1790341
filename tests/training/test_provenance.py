from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

from engine.errors import OutputError
from training.provenance import commit, made_here, versions, write_provenance


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("one\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_the_commit_is_named_and_changes_are_marked(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert commit(checkout) == head
    (checkout / "code.py").write_text("two\n")
    assert commit(checkout) == f"{head}+changes"


def test_the_commit_of_a_checkout_around_the_code_is_not_taken_for_the_codes_own(checkout: Path) -> None:
    (checkout / "installed").mkdir()
    assert commit(checkout / "installed") == "unknown"


def test_where_there_is_no_checkout_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) == "unknown"


def test_where_there_is_no_git_the_commit_is_unknown(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert commit(checkout) == "unknown"


def test_versions_are_those_that_run(tmp_path: Path) -> None:
    found = versions()
    assert found["python"] == platform.python_version() and found["numpy"] == np.__version__
    assert made_here() == {"commit": commit(), **found}
    assert made_here("a GPU") == {"commit": commit(), "device": "a GPU", **found}
    folds = [{"folds": 3, "commit": "c0ffee"}]
    written = write_provenance(tmp_path / "run.json", folds)
    assert json.loads((tmp_path / "run.json").read_text()) == written == {"report": made_here(), "folds": folds}


def test_an_unwritable_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_provenance(tmp_path / "none" / "run.json", [])
