from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

from stream.recorded.folders.index import clock, write_index
from stream.recorded.folders.outcome import Outcome
from stream.recorded.folders.table import Row, Table
from tests.browser import chromium
from tests.stream.recorded.folders.results import a_file
from tests.stream.recorded.folders.test_table import a_task, finished


def text_of(out: Path, rows: list[Row]) -> str:
    out.mkdir(exist_ok=True)
    write_index(out, rows)
    return (out / "index.html").read_text(encoding="utf-8")


class Links(HTMLParser):
    """The targets of links, and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0:00"), (59.6, "1:00"), (725, "12:05"), (3725, "1:02:05"), (36000, "10:00:00")]
)
def test_times_are_those_of_a_player(seconds: float, words: str) -> None:
    assert clock(seconds) == words


def test_reports_are_linked_where_there_are_any(tmp_path: Path) -> None:
    names = ["a", "s1/with", "s1/ü ?#&%2F'\"<b>:.mp4"]
    tasks = [finished(a_task(tmp_path, name)) for name in names]
    for task in tasks[1:]:
        a_file(task.folder / "report.html")
    page = Links(text_of(tmp_path / "out", Table(tmp_path / "out", tasks).rows))
    found = [unquote(link) for link in page.links if link.endswith(("report.html", "/"))]
    assert found == ["a/", "s1/with/report.html", f"{names[2]}/report.html"]
    assert all((tmp_path / "out" / link).exists() for link in found)


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    foul = "<script>alert(1)</script>\x1b[2J{{policy}}"
    page = text_of(tmp_path / "out", [Row(foul, f"s1/{foul}", "failed", foul)])
    assert "<script>alert" not in page and "\x1b" not in page
    assert Links(page).texts.count("<script>alert(1)</script>\\x1b[2J{{policy}}") == 1


def test_a_video_that_is_gone_counts_in_no_total(tmp_path: Path) -> None:
    tasks = [finished(a_task(tmp_path, name)) for name in ("before", "now")]
    tasks[0].video.unlink()
    page = Links(text_of(tmp_path / "out", Table(tmp_path / "out", tasks[1:]).rows))
    assert page.texts[page.texts.index("expressions") - 1] == "2"
    assert "video is gone" in page.texts and "2 videos · 1 video is gone" in page.texts


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_accessible(browser: Browser, scheme: Literal["light", "dark"], width: int, tmp_path: Path) -> None:
    tasks = [finished(a_task(tmp_path, "day1/anna"), "cut off"), a_task(tmp_path, "day1/ben"), a_task(tmp_path, "carl")]
    finished(a_task(tmp_path, "gone")).video.unlink()
    table = Table(tmp_path / "out", tasks)
    table.note(Outcome(tasks[1], None, f"{tasks[1].video} cannot be read as a video: it is damaged or no video at all"))
    write_index(tmp_path / "out", table.rows)
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 844}, bypass_csp=True)
    page = context.new_page()
    page.goto((tmp_path / "out" / "index.html").as_uri())
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    violations = Axe().run(page).response["violations"]
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in violations] == []
    context.close()


def test_the_page_sorts_and_filters(browser: Browser, tmp_path: Path) -> None:
    page, problems = browser.new_page(), []
    tasks = [a_task(tmp_path, name) for name in ("day1/anna", "day1/ben", "day10/anna", "day2/carl")]
    table = Table(tmp_path / "out", [finished(task) for task in tasks[:3]])
    table.note(Outcome(tasks[3], None, "damaged beyond reading"))
    (tmp_path / "out" / "day1" / "ben" / "summary.json").write_text(
        re.sub(r'"count": 2,', '"count": 7,', (tmp_path / "out" / "day1" / "ben" / "summary.json").read_text(), count=1)
    )
    table.note(Outcome(tasks[1], None, None))
    write_index(tmp_path / "out", table.rows)
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((tmp_path / "out" / "index.html").as_uri())

    def names() -> list[str]:
        return [row.split()[0] for row in page.locator("tbody tr:visible").all_inner_texts()]

    assert names() == ["day1/anna", "day1/ben", "day10/anna", "day2/carl"]
    page.get_by_role("button", name="Video").click()
    page.get_by_role("button", name="Video").click()
    assert names() == ["day1/anna", "day1/ben", "day2/carl", "day10/anna"], "numbers in names count as numbers"
    page.get_by_role("button", name="Expressions").click()
    assert names() == ["day1/ben", "day1/anna", "day10/anna", "day2/carl"], "rows without a figure come last"
    page.get_by_role("button", name="Expressions").click()
    assert names()[2:] == ["day1/ben", "day2/carl"]
    page.get_by_label("Name").fill("anna 1")
    assert sorted(names()) == ["day1/anna", "day10/anna"]
    assert page.locator("#count").inner_text() == "2 of 4"
    page.get_by_label("Name").fill("")
    page.get_by_label("State").select_option("Failed")
    assert names() == ["day2/carl"]
    assert problems == []
