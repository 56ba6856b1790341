"""What the tests of the flow benchmark share."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import pytest


@pytest.fixture
def opencv_on_one_thread() -> Iterator[None]:
    chosen = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(chosen)
