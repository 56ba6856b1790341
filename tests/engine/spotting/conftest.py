from __future__ import annotations

import pytest

from engine.faces.landmarks import FaceLocator
from engine.registration.align import Registrar
from engine.types import Crop, Frame
from tests.faces import photo


@pytest.fixture(scope="session")
def crop() -> Crop:
    """A real crop of a neutral face; the tests move it by hand."""
    locator, frame = FaceLocator(), Frame(0, 0.0, photo("hopper"))
    made = Registrar().register(frame, locator.locate(frame)[0])
    locator.close()
    assert made is not None
    return made
