from __future__ import annotations

import pytest

from stream.recorded.single_page import THEME, filled, packaged, policy


def test_a_template_is_filled() -> None:
    assert filled("<p>{{a}}</p>{{b}}{{a}}", {"a": "1 {{b}}", "b": "2"}) == "<p>1 {{b}}</p>21 {{b}}", "values are not templates"
    assert filled("plain", {}) == "plain"
    with pytest.raises(KeyError, match="c"):
        filled("{{c}}", {})


def test_code_is_allowed_by_its_content_alone() -> None:
    """The hash of "1" is that which `openssl dgst -sha256 -binary | base64` gives."""
    one = "'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='"
    allowed = dict(part.split(" ", 1) for part in policy(["1"], ["2", "1"]).split("; "))
    assert (allowed["default-src"], allowed["img-src"], allowed["style-src"]) == ("'none'", "data:", one)
    assert allowed["script-src"].split()[1] == one != allowed["script-src"].split()[0]


def test_files_of_the_package_are_read() -> None:
    assert "dataset.theme" in packaged(THEME)
