from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.soak.attack_figures import PHOTOS, Attack, Run, Sample, figures, violations, windows
from tests.soak.attack_target import Outcome


def a_run(**changes: Any) -> Run:
    """A run of ten minutes after 30 s of calm: an attack every 20 s lasts 10 s; nothing is wrong."""
    stored = [(20_000 + k, f"id-{k}") for k in range(1, 101)]
    sound = Run(
        samples=[a_sample(at) for at in range(-30, 600)],
        attacks=[Attack("malformed", float(at), at + 10.0, Outcome()) for at in range(0, 600, 20)],
        round_s=100.0,
        stored=stored,
        clients=[list(stored) for _ in range(3)],
        connections=[1, 1, 1],
    )
    return replace(sound, **changes)


def a_sample(at: float, **changes: Any) -> Sample:
    frames = dict.fromkeys(PHOTOS, round(15 * (at + 30)))
    return replace(Sample(at, 800.0, 48, frames, 0.02, 4.0, 0.3 * at, 0.1 * at), **changes)


def test_a_sound_run_has_no_violations() -> None:
    assert violations(a_run()) == []
    of = figures(a_run())
    assert of["cameras"]["hopper"] == {"fps_before": 15.0, "fps_between": 15.0, "windows": 30, "worst": 1.0, "below": []}
    assert of["events"]["clients"][0]["seen"] == 100 and of["attacks"] == {"malformed": 30}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda sound: sound.clients[1].pop(7), "client 2: 1 events lost"),
        (lambda sound: sound.clients[2].insert(5, sound.clients[2][4]), "client 3: 1 events twice"),
        (lambda sound: sound.clients[0].append((20_101, "new")), "client 1: 1 events not stored"),
        (lambda sound: sound.clients[0].reverse(), "client 1: 99 events out of order"),
        (lambda sound: sound.stored.append((20_101, "id-3")), "1 events are stored twice"),
        (lambda sound: sound.stored.append((20_102, "id-102")), "1 numbers are in no store"),
        (
            lambda sound: sound.attacks[3].outcome.require("it was reported late", ok=False),
            "malformed at 60 s: it was reported late",
        ),
    ],
)
def test_what_is_lost_or_comes_twice_is_reported(change: Any, sentence: str) -> None:
    found = a_run()
    change(found)
    assert sentence in violations(found)


def test_a_run_that_ended_before_its_first_sample_has_figures_and_violations() -> None:
    found = a_run(samples=[], attacks=[])
    of = figures(found)
    assert (of["load"], of["memory_mib"]["most"], of["healthz"]["asked"]) == ({"median": None, "worst": None}, None, 0)
    assert violations(found) == [f"{photo}: nothing was analysed before the first attack" for photo in PHOTOS]
    assert windows(Run()) == []
    assert "no event was stored" in violations(Run())


def test_what_is_held_and_how_it_answers_is_violations() -> None:
    grown = [a_sample(at, memory_mib=800.0 + max(0, at) / 3, handles=48 if at < 300 else 60) for at in range(-30, 600)]
    problems = violations(a_run(samples=grown))
    assert any(sentence.startswith("memory grew by 1") for sentence in problems)
    assert "descriptors grew from 48 to 60" in problems
    silent = [a_sample(at, health_s=None if at == 50 else 6.0 if at == 51 else 0.02) for at in range(-30, 600)]
    assert violations(a_run(samples=silent)) == ["/healthz did not answer 1 times", "/healthz took 6.0 s"]
    assert violations(a_run(log="Traceback (most recent call last):\x1b")) == [
        "1 tracebacks are in the log",
        "1 escapes of terminals are in the log",
    ]


def test_a_camera_that_is_slow_outside_an_attack_is_reported_with_the_load() -> None:
    """Frozen for 5 s of the calm from 50 to 60 s, and all through the attack before it, which counts nothing."""

    def frozen(at: int) -> Sample:
        lost = 15 * (min(max(0, at - 40), 10) + min(max(0, at - 52), 5))
        return a_sample(at, frames=dict.fromkeys(PHOTOS, 15 * (at + 30) - lost), load=9.0)

    problems = violations(a_run(samples=[frozen(at) for at in range(-30, 600)]))
    busy = "load 9.0, 0.3 cores used, 0.1 s a second waited for them"
    assert problems == [f"{photo}: from 50 to 60 s 7.5 of 15.0 frames a second ({busy})" for photo in PHOTOS]


def test_stretches_begin_when_the_last_of_overlapping_attacks_has_ended() -> None:
    two = [
        Attack("malformed", 0.0, 30.0, Outcome()),
        Attack("idle", 0.0, 5.0, Outcome()),
        Attack("malformed", 38.0, 40.0, Outcome()),
    ]
    assert windows(a_run(attacks=two))[:2] == [(30.0, 38.0), (40.0, 599.0)]
