from __future__ import annotations

import base64
import hashlib
import json
import re

from stream.recorded.report.page import data_line, page, picture_element


def written(title: str = "interview.mp4", summary: object = None, events: list[str] | None = None) -> str:
    return "".join(page(title, {"title": summary}, events or [], [picture_element(0, "c3RyaXA=", "Zmxvdw==")]))


def test_the_page_runs_and_shows_only_what_is_in_it() -> None:
    text = written()
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    allowed = dict(part.strip().split(" ", 1) for part in found[1].split(";"))
    assert allowed["default-src"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    assert allowed["img-src"] == "data:"
    scripts, styles = (
        re.findall(r"<script>(.*?)</script>", text, re.DOTALL),
        re.findall(r"<style>(.*?)</style>", text, re.DOTALL),
    )
    for name, content in (("script-src", scripts), ("style-src", styles)):
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in content]
        assert allowed[name].split() == hashes, "inline code must be allowed by its hash alone"
    assert not re.search(r"(?:src|href)=[\"'](?!#)", text), "a file beside the page is named"


def test_text_from_outside_cannot_end_its_element() -> None:
    foul = '</script><script>alert("1 & 2")</script><!--'
    text = written(foul, foul, [data_line({"label": foul}) + "\n"])
    assert foul not in text and "<!--" not in text
    held = re.search(r'<script type="application/json" id="summary">(.*?)</script>', text)
    lines = re.search(r'<script type="application/json" id="events">(.*?)</script>', text, re.DOTALL)
    assert held is not None and json.loads(held[1]) == {"title": foul}
    assert lines is not None and json.loads(lines[1]) == {"label": foul}
    assert "&lt;/script&gt;&lt;script&gt;alert(&quot;1 &amp; 2&quot;)" in text


def test_names_in_any_encoding_can_be_written() -> None:
    assert json.loads(data_line("\udcff\u2028é")) == "\udcff\u2028é"
    assert data_line("\udcff\u2028é").isascii()


def test_pictures_follow_the_scripts() -> None:
    text = written()
    assert text.index("pictures-0") > text.rindex("</script>", 0, text.index("pictures-0")) > text.index('id="events"')
    assert re.search(r'<script type="text/plain" id="pictures-0">c3RyaXA=\nZmxvdw==</script>', text)


def test_the_modules_become_one_script() -> None:
    script = re.findall(r"<script>(.*?)</script>", written(), re.DOTALL)[-1]
    assert not re.search(r"^\s*(import|export) ", script, re.MULTILINE)
    assert "class Timeline" in script and "function shapeIcon" in script
