"""The documentation: links, modules and commands that it names exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from apexstream.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "engine").rglob("*.md"),
        ROOT / "training/LEDGER.md",
    )
)
HISTORY = {"CHANGELOG.md", "LEDGER.md"}
"""Pages that also name what existed in earlier versions."""
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
current_pages = pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: page.relative_to(ROOT).as_posix()
)


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match(r"[a-z]+:", target)]
    for target in targets:
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(place), f"{target}: there is no such heading"


@current_pages
def test_named_files_exist(page: Path) -> None:
    """What stands in backquotes as a path of this project."""
    named = re.findall(r"`((?:engine|stream|training|tools|tests|docs|configs)/[\w./-]*)`", prose(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


@current_pages
def test_named_modules_and_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = set(re.findall(r"python -m ((?:apexstream|lab|tests)(?:\.[a-z0-9_]+)+)", text))
    assert [name for name in sorted(modules) if importlib.util.find_spec(name) is None] == []
    commands = set(re.findall(r"(?:^|`)apexstream ([a-z][a-z-]+)", text, re.MULTILINE))
    assert commands <= set(COMMANDS)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md" and f"({page.name})" not in index
    ] == []


def test_the_picture_of_the_readme_is_small() -> None:
    assert (ROOT / "docs" / "pictures" / "demo.webp").stat().st_size < 3_000_000


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110
