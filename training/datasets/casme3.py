"""CAS(ME)^3 part A (Li et al. 2022), its micro-expressions: 860 rows, 670 in the three classes and measurable.

One film (a letter) of a subject holds several expressions, so a clip is named by film and apex. Rows whose apex is the onset
or lies outside the clip are left out.
"""

from __future__ import annotations

from training.datasets.clips import NEGATIVE, POSITIVE, SURPRISE, Database
from training.datasets.coded import Coding, Columns

EMOTIONS: dict[str, int | None] = {
    **dict.fromkeys(("disgust", "fear", "anger", "sad"), NEGATIVE),
    "happy": POSITIVE,
    "surprise": SURPRISE,
    "others": None,
}

CODING = Coding(
    database="casme3",
    columns=Columns("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "emotion"),
    emotions=EMOTIONS,
    fps=30.0,
    sheet="label",
    named_by_apex=True,
    below="/color",
)

DATABASE = Database(
    name="casme3",
    title="CAS(ME)^3 part A",
    table="cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
    example="spNO.1/b/color/175.jpg",
    read=CODING.read,
)
