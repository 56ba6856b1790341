from __future__ import annotations

import numpy as np

from engine.types import Activity, Face, Frame, Mark, Observation
from stream.recorded.output import Output


def test_an_output_defines_only_what_it_wants() -> None:
    class Faces(Output):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def activity(self, activity: Activity, origin: float) -> None:
            self.seen.append(activity.face)

    faces: Output = Faces()
    frame = Frame(0, 0.0, np.zeros((2, 2), np.uint8), "grey")
    face = Face(3, np.zeros((478, 3), np.float32), 0.0)
    faces.frame(frame, [face], [Observation(3, Mark(0, 0.0), (0, 0, 1, 1), None, 0.0, 0.0, {})], 0.0)
    faces.activity(Activity(3, "blink", Mark(0, 0.0), Mark(3, 0.1)), 0.0)
    faces.finish({})
    faces.close()
    assert isinstance(faces, Faces) and faces.seen == [3]
