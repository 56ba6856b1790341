from __future__ import annotations

import pytest

from engine.errors import SourceError
from stream.sources.kinds import parse_address


def test_a_webcams_number_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert (parse_address("1").target, parse_address("1").format) == ("1", "avfoundation")
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(SourceError, match="cannot be named by number"):
        parse_address("1")


@pytest.mark.parametrize("graph", ["", " "])
def test_a_pattern_needs_a_graph(graph: str) -> None:
    with pytest.raises(SourceError, match="graph"):
        parse_address(f"lavfi:{graph}")
