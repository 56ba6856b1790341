"""The review page in a real Chromium with real key presses, before a real server and videos in many formats."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from stream.recorded.face_places import COLUMNS, FILE
from stream.recorded.results import read_results
from stream.review.adjudication import adjudicate
from stream.review.database import ReviewDatabase
from tests.broker import free_port
from tests.browser import PATIENCE_MS, chromium
from tests.live import PATIENCE_S
from tests.review import code_of, results_of, write_plain
from tests.reviewing import RunningReview, review_page, saved

ONSETS = [30, 80, 130]
expect.set_options(timeout=PATIENCE_MS)
BRIGHTNESS = """
    (canvas) => {
      const copy = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
      const brush = copy.getContext("2d");
      brush.drawImage(canvas, canvas.width / 2, canvas.height * 0.1, 1, 1, 0, 0, 1, 1);
      return brush.getImageData(0, 0, 1, 1).data[0];
    }
"""
"""Of the bar whose grey tells the frame's number."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver, chromium(driver) as running:
        yield running


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plain(tmp_path_factory.mktemp("videos") / "clip.mp4", 200)


@pytest.fixture
def review(video: Path, tmp_path: Path) -> Iterator[RunningReview]:
    with RunningReview(results_of(video, tmp_path / "results", ONSETS)) as running:
        yield running


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def shown_frame(page: Page) -> int:
    """The frame whose number is written below the picture, once its picture is the one that is drawn."""
    text = page.locator("#frame-text").inner_text()
    number = int(text.split()[1])
    page.wait_for_selector(f"#picture[data-frame='{number}']")
    return number


def goes_on(page: Page, url: str) -> None:
    page.goto(url)
    saved(page)


def test_events_are_decided_by_keys(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url) as page:
        expect(page.locator("#position")).to_contain_text("1 of 3")
        press(page, "a")
        expect(page.locator("#position")).to_contain_text("2 of 3")
        press(page, "r", "3")
        saved(page)
        codes = review.codes()
        assert {id_: code.decision for id_, code in codes.items()} == {
            "event-0": "accepted",
            "event-1": "rejected",
            "event-2": "accepted",
        }
        press(page, "1", "u")
        page.keyboard.type("4+l7")
        expect(page.locator("#unit-text")).to_have_text("Brow lowerer, Lid tightener")
        press(page, "Enter", "n")
        page.keyboard.type("jaw <b>set</b>")
        press(page, "Shift+Enter")
        page.keyboard.type("twice")
        press(page, "Enter")
        saved(page)
        code = review.codes()["event-2"]
        assert (code.decision, code.label) == ("relabelled", "negative")
        assert (code.action_units, code.note) == (("AU4", "LAU7"), "jaw <b>set</b>\ntwice")
        expect(page.locator("#count")).to_have_text("3 of 3 decided")
        goes_on(page, review.url)
        press(page, "j", "j")
        expect(page.locator("#note-text")).to_have_value("jaw <b>set</b>\ntwice")
        expect(page.locator("#units")).to_have_value("AU4 LAU7")


def test_the_kind_and_why_the_machine_is_uncertain_are_shown(browser: Browser, video: Path, tmp_path: Path) -> None:
    results = results_of(video, tmp_path / "results", ONSETS)
    lines = [json.loads(line) for line in (results / "events.jsonl").read_text().splitlines()]
    lines[0] |= {"label": "uncertain", "why": "covered"}
    lines[1] |= {"label": "uncertain", "why": "not sure"}
    (results / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with RunningReview(results) as review, review_page(browser, review.url) as page:
        position = page.locator("#position")
        expect(position).to_have_text("machine: uncertain, something covered the face · micro · face 0 · 1 of 3")
        press(page, "j")
        expect(position).to_have_text("machine: uncertain, not sure · micro · face 0 · 2 of 3")
        press(page, "j")
        expect(position).to_contain_text(re.compile(r"machine: surprise \d+\s% · micro"))


def test_flags_are_named_where_there_is_room(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url, viewport={"width": 1400, "height": 900}) as page:
        for mark, word in (("onset", "S onset"), ("apex", "D apex"), ("offset", "F offset")):
            assert (page.locator(f"#mark-{mark}").get_attribute("title") or "").lower().startswith(mark)
            expect(page.locator(f"#mark-{mark} b")).to_have_text(word)
            expect(page.locator(f"#mark-{mark} b span")).to_be_visible()
        page.set_viewport_size({"width": 390, "height": 844})
        expect(page.locator("#mark-apex b span")).to_be_hidden()


def test_a_phone_starts_at_the_top_however_far_down_the_list_the_first_open_event_is(
    browser: Browser, video: Path, tmp_path: Path
) -> None:
    results = results_of(video, tmp_path / "results", range(10, 180, 5))
    events = [entry.event for entry in read_results(results).entries]
    with ReviewDatabase.open(results) as database:
        for event in events[:-1]:
            database.put(event.id, code_of(event))
    look = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with RunningReview(results) as review, review_page(browser, review.url, **look) as page:
        expect(page.locator("#position")).to_contain_text("34 of 34")
        page.wait_for_function("() => document.getElementById('items').scrollTop > 0")
        assert page.evaluate("() => window.scrollY") == 0


def test_undo_goes_back_step_by_step(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url) as page:
        press(page, "a", "r", "z")
        expect(page.locator("#position")).to_contain_text("2 of 3")
        expect(page.locator("#verdict")).to_have_text("")
        press(page, "Control+z")
        expect(page.locator("#position")).to_contain_text("1 of 3")
        press(page, "z")
        expect(page.locator("#notice")).to_have_text("There is nothing to undo.")
        assert review.codes() == {}


def test_marks_are_moved_to_real_frames(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url) as page:
        assert shown_frame(page) == 30
        press(page, "ArrowRight", "ArrowRight", "s")
        press(page, "Shift+f", "Shift+ArrowRight", "f")
        assert shown_frame(page) == 52
        saved(page)
        code = review.codes()["event-0"]
        assert [mark and mark.frame for mark in code.marks.values()] == [32, 36, 52]
        assert [mark and mark.t for mark in code.marks.values()] == [1.28, 1.44, 2.08]
        assert code.decision == "open", "moving a mark decides nothing"
        apex = page.locator("#mark-apex")
        box, track = apex.bounding_box(), page.locator("#track").bounding_box()
        assert box is not None and track is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 + 5.2 * track["width"] / 92, box["y"] + 10, steps=5)
        page.mouse.up()
        expect(apex).to_have_attribute("aria-valuenow", "41")
        apex.press("ArrowLeft")
        expect(apex).to_have_attribute("aria-valuenow", "40")
        saved(page)
        moved = review.codes()["event-0"].apex
        assert moved is not None and (moved.frame, moved.t) == (40, 1.6)


def test_what_was_missed_is_added_and_removed(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url) as page:
        press(page, "PageDown", "ArrowRight", "m", "2")
        expect(page.locator("#position")).to_contain_text("of 4")
        saved(page)
        (code,) = review.codes().values()
        assert (code.decision, code.label, code.event) == ("added", "positive", None)
        assert code.apex is not None and code.apex.frame == 30 + 100 + 1
        press(page, "Delete")
        expect(page.locator("#count")).to_have_text("0 of 3 decided")
        press(page, "z")
        expect(page.locator("#count")).to_have_text("1 of 4 decided")
        saved(page)
        assert review.codes() == {code.id: code}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("clip.avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
        ("clip.mkv", {"codec": "libx265", "pix_fmt": "yuv422p10le"}),
        ("clip.mpg", {"codec": "mpeg1video"}),
        ("clip.wmv", {"codec": "wmv2"}),
    ],
)
def test_videos_that_no_browser_plays_are_shown_frame_by_frame(
    name: str, how: dict[str, Any], browser: Browser, tmp_path: Path
) -> None:
    results = results_of(write_plain(tmp_path / name, 150, **how), tmp_path / "results", [70])
    with RunningReview(results) as review, review_page(browser, review.url) as page:
        for _ in range(4):
            frame = shown_frame(page)
            assert abs(page.locator("#picture").evaluate(BRIGHTNESS) - (40 + 4 * (frame % 50))) <= 6
            press(page, "ArrowRight")
        assert shown_frame(page) == 74


def test_the_event_is_played_in_a_loop_at_the_chosen_speed(browser: Browser, review: RunningReview) -> None:
    """Frames shown and how long each is, by the page's own clock: at half speed a frame of 1/25 s takes 80 ms."""
    with review_page(browser, review.url) as page:
        press(page, "+", " ")
        expect(page.locator("#play-text")).to_have_text("Stop")
        changes = page.evaluate(
            """() => new Promise((done) => {
                const seen = [];
                new MutationObserver(() => {
                    seen.push([performance.now(), Number(document.getElementById("picture").dataset.frame)]);
                    if (seen.length > 60) done(seen);
                }).observe(document.getElementById("picture"), { attributes: true, attributeFilter: ["data-frame"] });
            })"""
        )
        shown = [frame for _, frame in changes]
        assert min(shown) >= 30 - 13 and max(shown) <= 42 + 13
        again = [k for k, (earlier, later) in enumerate(pairwise(shown), 1) if later < earlier]
        assert again, "the loop starts again"
        stretches = [changes[k : k + 6] for k in range(again[0], len(changes) - 5)]
        paces = [  # the median, since a busy machine shows some pictures late
            (stretch[-1][0] - stretch[0][0]) / (stretch[-1][1] - stretch[0][1])
            for stretch in stretches
            if all(later[1] > earlier[1] for earlier, later in pairwise(stretch))
        ]
        assert median(paces) == pytest.approx(80, rel=0.25)
        expect(page.locator("#play .stop-sign")).to_be_visible()
        expect(page.locator("#play .play-sign")).to_be_hidden()
        press(page, " ")
        expect(page.locator("#play-text")).to_have_text("Play")
        expect(page.locator("#play .play-sign")).to_be_visible()


def test_nothing_is_lost_while_the_server_is_away(browser: Browser, video: Path, tmp_path: Path) -> None:
    results = results_of(video, tmp_path / "results", ONSETS)
    port = free_port()
    with RunningReview(results, port=port) as review:
        url = review.url
        context = browser.new_context()
        page = context.new_page()
        goes_on(page, url)
        press(page, "a")
        saved(page)
    press(page, "r")
    expect(page.locator("#link-text")).to_have_text("Server away: 1 decision kept here until it is back")
    page.goto("about:blank")
    with RunningReview(results, port=port) as review:
        goes_on(page, url)
        expect(page.locator("#count")).to_have_text("2 of 3 decided")
        press(page, "a")
        saved(page)
        assert [code.decision for code in review.codes().values()] == ["accepted", "rejected", "accepted"]
    context.close()


def test_a_blind_coder_sees_no_class_and_must_give_one(browser: Browser, video: Path, tmp_path: Path) -> None:
    results = results_of(video, tmp_path / "results", ONSETS)
    with RunningReview(results, "ben", blind="labels") as review, review_page(browser, review.url) as page:
        expect(page.locator("#stage-title")).to_have_text("Class not given")
        expect(page.locator("#position")).not_to_contain_text("machine")
        press(page, "a")
        expect(page.locator("#notice")).to_contain_text("Choose a class first: 1 negative, 2 positive")
        press(page, "2", "a")
        expect(page.locator("#position")).to_contain_text("2 of 3")
        saved(page)
        assert review.codes()["event-0"].decision == "relabelled"
    with RunningReview(results, "cleo", blind="machine") as review, review_page(browser, review.url, picture=False) as page:
        expect(page.locator("#no-items")).to_be_visible()
        page.wait_for_selector("#picture[data-frame]")
        press(page, "PageDown", "m")
        expect(page.locator("#position")).to_contain_text("1 of 1")


def test_the_face_is_shown_larger_or_the_whole_picture(browser: Browser, video: Path, tmp_path: Path) -> None:
    results = results_of(video, tmp_path / "results", ONSETS)
    (results / FILE).write_text(",".join(COLUMNS) + "\n0,30,1.2,90.0,70.0,20.0,20.0\n")
    with RunningReview(results) as review, review_page(browser, review.url) as page:
        with page.expect_request(lambda request: "region=75,61,50,38" in request.url):
            page.reload()
        with page.expect_request(lambda request: "/frames/" in request.url and "region" not in request.url):
            press(page, "v")
        expect(page.locator("#view")).to_have_text("Face")


def test_the_list_is_filtered_and_followed(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url) as page:
        press(page, "j", "r")
        expect(page.locator("#position")).to_contain_text("3 of 3")
        page.locator("#filter").select_option("open")
        expect(page.locator("#items .item")).to_have_count(2)
        press(page, "g")
        expect(page.locator("#position")).to_contain_text("1 of 3")
        page.locator("#filter").select_option("rejected")
        expect(page.locator("#items .item")).to_have_count(1)
        page.locator("#items .item").click()
        expect(page.locator("#position")).to_contain_text("2 of 3")
        expect(page.locator("#verdict")).to_have_text("Rejected")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(scheme: Any, browser: Browser, review: RunningReview) -> None:
    look = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme}
    with review_page(browser, review.url, **look) as page:
        press(page, "a")
        saved(page)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        assert page.evaluate("() => window.scrollY") == 0, "the picture stays in view"
        assert Axe().run(page).response["violations"] == []
        press(page, "?")
        expect(page.locator("#keys")).to_be_visible()
        assert Axe().run(page).response["violations"] == []
        press(page, "a", "Escape")
        expect(page.locator("#position")).to_contain_text("2 of 3")


def test_a_third_person_decides_about_disagreements(browser: Browser, video: Path, tmp_path: Path) -> None:
    results = results_of(video, tmp_path / "results", ONSETS)
    events = [entry.event for entry in read_results(results).entries]
    with ReviewDatabase.open(results) as database:
        for coder in ("anna", "ben"):
            database.enter(coder, "none")
            for event in events[1:]:
                database.put(
                    f"{coder} {event.id}", code_of(event, coder, decision="rejected" if coder == "ben" else "accepted")
                )
            database.put(f"{coder} first", code_of(events[0], coder))
        adjudication = adjudicate(read_results(results), database, "cleo")
    with RunningReview(results, "cleo", adjudication=adjudication) as review, review_page(browser, review.url) as page:
        expect(page.locator("#coder")).to_contain_text("decides about disagreements")
        expect(page.locator("#others .other")).to_have_count(2)
        expect(page.locator("#others")).to_contain_text("ben")
        expect(page.locator("#others button").first).to_have_text("Take over Shift+1")
        press(page, "Shift+Digit2")
        expect(page.locator("#position")).to_contain_text("2 of 2")
        press(page, "Shift+Digit1")
        saved(page)
        decisions = {id_: code.decision for id_, code in review.codes().items()}
        assert decisions == {"event-0": "accepted", "event-1": "rejected", "event-2": "accepted"}


def test_what_is_no_action_unit_is_said_and_keeps_nothing_from_being_stored(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url) as page:
        press(page, "u")
        page.keyboard.type("4 smile")
        press(page, "Enter")
        expect(page.locator("#unit-text")).to_have_text("smile is no action unit")
        press(page, "a")
        expect(page.locator("#position")).to_contain_text("2 of 3")
        saved(page)
        code = review.codes()["event-0"]
        assert (code.decision, code.action_units) == ("accepted", ())


def test_a_note_stays_with_its_event_when_an_undo_is_answered_late(browser: Browser, video: Path, tmp_path: Path) -> None:
    results = results_of(video, tmp_path / "results", ONSETS)
    port = free_port()
    with RunningReview(results, port=port) as review:
        page = browser.new_page()
        goes_on(page, review.url)
        press(page, "a")
        saved(page)
    expect(page.locator("#link")).to_have_attribute("data-state", "away")
    press(page, "z", "n")
    page.keyboard.type("unsure")
    with RunningReview(results, port=port) as review:
        saved(page)
        press(page, "Escape")
        saved(page)
        assert {id_: code.note for id_, code in review.codes().items()} == {"event-1": "unsure"}
    page.close()


def test_a_note_is_stored_when_the_page_is_closed_while_it_is_being_written(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url) as page:
        press(page, "n")
        page.keyboard.type("unsure")
        goes_on(page, review.url.replace("/#", "/?again#"))
        expect(page.locator("#note-text")).to_have_value("unsure")
        assert review.codes()["event-0"].note == "unsure"


def test_a_note_is_stored_while_it_is_being_written(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url) as page:
        press(page, "n")
        page.keyboard.type("unsure")
        deadline = time.monotonic() + PATIENCE_S
        notes: list[tuple[str, str]] = []
        while notes != [("open", "unsure")]:  # where typing pauses for long, its beginning is stored first
            assert time.monotonic() < deadline, f"stored: {notes}"
            page.wait_for_timeout(50)
            notes = [(code.decision, code.note) for code in review.codes().values()]


def test_what_the_server_refuses_is_taken_back(browser: Browser, review: RunningReview) -> None:
    with review_page(browser, review.url) as page:
        press(page, "3")
        saved(page)
        review.server.session.times = review.server.session.times[:20]  # as if the video were shorter
        press(page, "ArrowRight", "s")
        expect(page.locator("#notice")).to_have_text("the video has no frame 31")
        expect(page.locator("#mark-onset")).to_have_attribute("aria-valuenow", "30")
        expect(page.locator("#verdict")).to_have_text("Accepted, other class")


def test_an_address_without_its_token_is_explained(browser: Browser, review: RunningReview) -> None:
    page = browser.new_page()
    page.goto(review.url.partition("#")[0])
    expect(page.locator("#notice")).to_have_text("Open the whole address that apexstream review printed: it ends with a token.")
    page.close()
