"""SAMM (Davison et al. 2016): 159 micro-expressions, 133 in the three classes."""

from __future__ import annotations

from training.datasets.clips import NEGATIVE, POSITIVE, SURPRISE, Database
from training.datasets.coded import Coding, Columns

EMOTIONS: dict[str, int | None] = {
    **dict.fromkeys(("anger", "contempt", "disgust", "fear", "sadness"), NEGATIVE),
    "happiness": POSITIVE,
    "surprise": SURPRISE,
    "other": None,
}

CODING = Coding(
    database="samm",
    columns=Columns("Subject", "Filename", "Onset Frame", "Apex Frame", "Offset Frame", "Action Units", "Estimated Emotion"),
    emotions=EMOTIONS,
    fps=200.0,
    sheet="MICRO_ONLY",
    digits=3,
)

DATABASE = Database(
    name="samm",
    title="SAMM",
    table="SAMM_Micro_FACS_Codes_v2.xlsx",
    example="006/006_1_2/006_05562.jpg",
    read=CODING.read,
)
