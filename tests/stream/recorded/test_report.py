"""The report in a real Chromium, opened from disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser import PATIENCE_MS, chromium
from tests.reports import write_report

expect.set_options(timeout=PATIENCE_MS)
NOTE_PRINTED = """() => addEventListener("beforeprint", () => {
  window.printed = [document.querySelectorAll(".event").length, document.documentElement.dataset.theme];
})"""
WINDOW = "#window"
SHOWN = "[...document.querySelectorAll('#list .event')].map((card) => card.dataset.id)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver, chromium(driver) as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty events of two faces in a minute, with pictures; the video lies beside the folder."""
    return write_report(tmp_path_factory.mktemp("interview") / "results", 30, faces=2, pictures=True)


@contextmanager
def opened(browser: Browser, report: Path, anchor: str = "", **look: Any) -> Iterator[Page]:
    """The page, opened from disk; errors, and requests of anything but the page itself, fail the test."""
    with browser.new_context(**look) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        complaints: list[str] = []
        page.on("console", lambda logged: complaints.append(logged.text) if logged.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        address = report.as_uri()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address + anchor)
        yield page
        assert complaints == []
        assert [url for url in requests if not url.startswith((address, "data:"))] == []


def ids(page: Page) -> list[str]:
    found: list[str] = page.evaluate(SHOWN)
    return found


def test_the_head_says_what_was_found_and_seen(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        expect(page).to_have_title("interview.mp4 – apexstream report")
        expect(page.locator("#totals")).to_contain_text("30 expressions")
        expect(page.locator("#totals")).to_contain_text("seen well, of 60 s (100 %)")
        expect(page.get_by_role("row", name="Speaking 30 s")).to_contain_text("While lips move in speech")
        expect(page.get_by_role("row", name="Face 1")).to_have_text("Face 160 s60 s" + 6 * "–")
        expect(page.locator("#timeline")).to_have_attribute(
            "aria-label", "Timeline from 0:00.0 to 1:00.0: 30 expressions of 2 faces. The list below has them all."
        )


def test_each_event_has_its_pictures_curve_and_figures(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        card = page.locator("[data-id='lobby-2']")
        expect(card.get_by_role("heading")).to_contain_text("Surprise")
        expect(card.locator("img")).to_have_count(4)
        page.wait_for_function(
            "(card) => [...card.querySelectorAll('img')].every((image) => image.naturalWidth === 128)",
            arg=card.element_handle(),
        )
        assert card.locator("img.loop").evaluate("(image) => image.getAnimations().length") == 1
        expect(card.locator(".curve-name")).to_have_text(["onset", "apex", "offset"])
        expect(card).to_contain_text("surprise 92 %")
        expect(page.locator("[data-id='lobby-3'] .why")).to_have_text(
            "Uncertain: no class is likely enough. Likeliest: surprise, 92 %."
        )


def test_a_card_leads_to_its_moment_in_the_video(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        link = page.locator("[data-id='lobby-2'] a.moment")
        assert link.get_attribute("href") == "../interview.mp4#t=4.25,5.65"
        assert link.evaluate("(link) => link.href") == f"{(report.parent.parent / 'interview.mp4').as_uri()}#t=4.25,5.65"
        expect(link).to_have_accessible_name("0:04.95: open the video here")


def test_filters_and_order(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        page.locator("[data-id=lobby-5]").wait_for()
        page.get_by_role("button", name="Negative").click()
        expect(page.locator("#count")).to_have_text("22 of 30 expressions")
        page.locator("#filter-face").select_option("1")
        expect(page.locator("#count")).to_have_text("15 of 30 expressions")
        page.locator("#filter-speech").select_option("speaking")
        page.locator("#order").select_option("time-down")
        page.wait_for_function(f"() => JSON.stringify({SHOWN}) === JSON.stringify(['lobby-25', 'lobby-15', 'lobby-5'])")
        page.locator("#filter-sure").fill("95")
        expect(page.locator("#no-events")).to_have_text("No expression passes these filters.")
        page.get_by_role("button", name="Show all").click()
        expect(page.locator("#count")).to_have_text("30 expressions")
        page.locator("#order").select_option("sure")
        assert page.evaluate(f"{SHOWN}[0]") == "lobby-11"


def test_the_timeline_is_moved_and_zoomed_by_keys(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        timeline = page.locator("#timeline-box")
        timeline.focus()
        page.keyboard.press("+")
        expect(page.locator(WINDOW)).to_have_text("0:15.0 to 0:45.0")
        page.keyboard.press("ArrowRight")
        expect(page.locator(WINDOW)).to_have_text("0:18.7 to 0:48.7")
        page.keyboard.press("End")
        expect(page.locator(WINDOW)).to_have_text("0:30.0 to 1:00.0")
        page.get_by_label("Only what the timeline shows").check()
        shown = page.locator("#count").text_content()
        assert shown is not None and int(shown.split()[0]) in range(14, 18)
        page.keyboard.press("Home")
        timeline.focus()
        for _ in range(9):
            page.keyboard.press("+")
        page.keyboard.press("0")
        expect(page.locator(WINDOW)).to_have_text("0:00.0 to 1:00.0")
        expect(page.locator("#count")).to_have_text("30 expressions")


def test_the_timeline_is_moved_and_zoomed_by_the_pointer(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        canvas = page.locator("#timeline")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + 60
        page.mouse.move(*middle)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -250)
        page.keyboard.up("Control")
        expect(page.locator(WINDOW)).to_have_text("0:18.9 to 0:41.0")
        page.mouse.down()
        page.mouse.move(middle[0] + box["width"] / 4, middle[1], steps=4)
        page.mouse.up()
        expect(page.locator(WINDOW)).to_have_text("0:13.4 to 0:35.5")
        page.mouse.move(*middle)
        before = page.evaluate("scrollY")
        page.mouse.wheel(0, 300)  # without Ctrl the page scrolls
        page.wait_for_function("(before) => scrollY > before", arg=before)
        expect(page.locator(WINDOW)).to_have_text("0:13.4 to 0:35.5")


def test_an_event_is_opened_from_the_timeline_and_found_on_it(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        page.locator("#timeline").scroll_into_view_if_needed()
        box = page.locator("#timeline").bounding_box()
        assert box is not None
        peak = 1.0 + 10 * 60 / 32 + 0.2
        page.mouse.move(box["x"] + box["width"] * peak / 59.96, box["y"] + 22 + 18 + 16)
        expect(page.locator("#tip")).to_contain_text("Surprise 90 % · micro · 0:19.95")
        page.mouse.down()
        page.mouse.up()
        expect(page.locator("[data-id='lobby-10']")).to_be_focused()
        page.locator("[data-id='lobby-10']").get_by_role("button", name="Timeline").click()
        expect(page.locator("#timeline-box")).to_be_focused()
        expect(page.locator(WINDOW)).to_have_text("0:15.0 to 0:25.0")


def test_a_link_to_an_event_opens_it(browser: Browser, report: Path) -> None:
    with opened(browser, report, "#lobby-29") as page:
        expect(page.locator("[data-id='lobby-29']")).to_be_focused()
        expect(page.locator("[data-id='lobby-29']")).to_be_in_viewport()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everyone_can_use_it(browser: Browser, report: Path, scheme: Any, width: int) -> None:
    with opened(browser, report, color_scheme=scheme, viewport={"width": width, "height": 844}, bypass_csp=True) as page:
        page.locator(".event").first.wait_for()
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
        violations = Axe().run(page).response["violations"]
        assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in violations] == []


def test_another_width_keeps_all_events_in_order(browser: Browser, report: Path) -> None:
    with opened(browser, report, viewport={"width": 1280, "height": 900}) as page:
        for width, columns in ((1280, 3), (390, 1), (900, 2)):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function(
                "(count) => document.querySelectorAll('.block').length === count", arg=-(-30 // (2 * columns))
            )
            page.wait_for_function(f"() => {SHOWN}.length >= 2")
            assert ids(page)[:2] == ["lobby-0", "lobby-1"]


def test_pictures_stand_still_for_who_wants_that(browser: Browser, report: Path) -> None:
    playing = "[...document.querySelectorAll('img.loop')].reduce((sum, image) => sum + image.getAnimations().length, 0)"
    with opened(browser, report, reduced_motion="reduce") as page:
        page.locator(".event").first.wait_for()
        assert page.evaluate(playing) == 0
        page.get_by_role("button", name="Play the pictures").click()
        assert page.evaluate(playing) > 0


def test_all_cards_are_printed_in_light_colours(browser: Browser, report: Path) -> None:
    with opened(browser, report, color_scheme="dark") as page:
        page.locator(".event").first.wait_for()
        page.evaluate(NOTE_PRINTED)
        document = page.pdf()
        assert page.evaluate("window.printed") == [30, "light"]
        assert document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") >= 6
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_without_pictures_a_drawing_shows_what_moved(browser: Browser, tmp_path: Path) -> None:
    report = write_report(tmp_path / "out", 4)
    with opened(browser, report) as page:
        expect(page.locator("#pictures-hint")).to_contain_text("--pictures")
        expect(page.get_by_role("button", name="Play the pictures")).to_be_hidden()
        expect(page.locator("[data-id='lobby-1'] .moved .arrow").first).to_be_attached()
        expect(page.locator("[data-id='lobby-1'] img")).to_have_count(0)


@pytest.mark.parametrize("pictures", [False, True])
def test_words_on_a_curve_do_not_overlap(browser: Browser, pictures: bool, tmp_path: Path) -> None:
    report = write_report(tmp_path / "out", 12, pictures=pictures)
    with opened(browser, report) as page:
        page.locator(".curve").first.wait_for()
        overlaps = """(curves) => curves.map((curve) => {
          const [apex, scale] = [...curve.querySelectorAll("text")]
            .filter((text) => text.textContent === "apex" || text.classList.contains("curve-scale"))
            .map((text) => text.getBoundingClientRect());
          return apex.left < scale.right && scale.left < apex.right;
        })"""
        found = page.locator(".curve").evaluate_all(overlaps)
        assert len(found) >= 6 and not any(found)


def test_a_video_without_faces_or_events_is_explained(browser: Browser, tmp_path: Path) -> None:
    report = write_report(
        tmp_path / "out", 0, faces=0, notes=["it is <b>dark</b>"], complete=False, problem="stopped by the user"
    )
    with opened(browser, report) as page:
        expect(page.locator("#seen")).to_contain_text("No face was seen in this video")
        expect(page.locator("#no-events")).to_have_text("No expression was found in this video.")
        expect(page.locator("#notes")).to_have_text("it is <b>dark</b>")
        expect(page.locator("#problem")).to_have_text("Not all of the video was analysed. stopped by the user")


def test_thousands_of_events_stay_quick(browser: Browser, tmp_path: Path) -> None:
    report = write_report(tmp_path / "out", 5000, seconds=5000, fps=1.0)
    with opened(browser, report) as page:
        expect(page.locator("#count")).to_have_text("5,000 expressions")
        assert page.locator(".event").count() < 100
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
        page.wait_for_function(f"() => {SHOWN}.some((id) => Number(id.split('-')[1]) > 2000)")
        assert page.locator(".event").count() < 150
