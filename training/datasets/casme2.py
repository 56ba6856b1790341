"""CASME II (Yan et al. 2014): 255 expressions, 145 in the three classes.

Of the 63 of disgust, the two whose table has no apex or has it on the onset give no motion; the composite database leaves them
out too.
"""

from __future__ import annotations

from training.datasets.clips import NEGATIVE, POSITIVE, SURPRISE, Database
from training.datasets.coded import Coding, Columns

EMOTIONS: dict[str, int | None] = {
    "disgust": NEGATIVE,
    "repression": NEGATIVE,
    "happiness": POSITIVE,
    "surprise": SURPRISE,
    "others": None,
    "sadness": None,
    "fear": None,
}

CODING = Coding(
    database="casme2",
    columns=Columns("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"),
    emotions=EMOTIONS,
    fps=200.0,
    prefix="sub",
    digits=2,
)

DATABASE = Database(
    name="casme2",
    title="CASME II",
    table="CASME2-coding-20140508.xlsx",
    example="sub01/EP02_01f/img46.jpg (raw) or sub01/EP02_01f/reg_img46.jpg (cropped)",
    read=CODING.read,
)
