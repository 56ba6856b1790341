"""What tests of the stored events share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.events.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store in the test's own folder."""
    with Store(tmp_path) as opened:
        yield opened
