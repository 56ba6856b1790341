from __future__ import annotations

import pytest

from engine.errors import InputError
from stream.annotations.classes import class_of, own_mapping


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("positive", "positive"),
        (" Happiness ", "positive"),
        ("DISGUST", "negative"),
        ("surprised", "surprise"),
        ("uncertain", "uncertain"),
        ("AU12", "positive"),
        ("AU6+AU12", "positive"),
        ("au 6 + au 12", "positive"),
        ("AU12C+AU15", "positive"),
        ("1+2", "surprise"),
        ("AU1, AU2 AU5B", "surprise"),
        ("AU1+AU4", "negative"),
        ("L14", "negative"),
        ("AU25", None),
        ("AU6", "positive"),
        ("AU45", None),
        ("12 o'clock", None),
        ("others", None),
        ("", None),
    ],
)
def test_labels_of_coders_become_classes(label: str, expected: str | None) -> None:
    assert class_of(label) == expected


def test_a_mapping_of_ones_own_comes_first() -> None:
    own = own_mapping(["others=uncertain", "AU14 = positive", "a=b=negative"])
    assert own == {"others": "uncertain", "au14": "positive", "a=b": "negative"}
    assert [class_of(label, own) for label in ("Others", "AU14", "A=B", "fear")] == [
        "uncertain",
        "positive",
        "negative",
        "negative",
    ]


@pytest.mark.parametrize("text", ["happiness", "=positive", "happiness=glad", ""])
def test_what_maps_nothing_is_named(text: str) -> None:
    with pytest.raises(InputError, match="maps no label to a class"):
        own_mapping([text])
