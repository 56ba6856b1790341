from __future__ import annotations

from pathlib import Path

from tests.soak.attack_figures import violations
from tests.soak.attacks import ATTACKS, STORE, Plan, run


def test_each_attack_comes_once_a_round_and_never_two_on_the_store() -> None:
    turns = Plan(60.0, 3).turns()
    assert {next(turns) for _ in ATTACKS} == {(name,) for name in ATTACKS}
    later = [next(turns) for _ in range(300)]
    assert max(map(len, later)) == 2
    assert not any(len(set(STORE) & set(turn)) > 1 for turn in later)


def test_a_service_under_attack_loses_nothing(rendered_clip: Path) -> None:
    names = ("names", "damaged")
    found = run(Plan(1.2, 0, names, baseline_s=3.0, pause_s=(0.0, 0.1)), videos=[rendered_clip] * 2, filler=1000)
    judged_elsewhere = ("frames a second", "/healthz took")  # beside other tests rates and times mean nothing
    assert [problem for problem in violations(found) if not any(part in problem for part in judged_elsewhere)] == []
    assert {attack.name for attack in found.attacks} <= set(names) and found.attacks
    assert all(len(seen) > 0 for seen in found.clients)
