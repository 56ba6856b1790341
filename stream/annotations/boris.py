"""Projects of BORIS (.boris, .boris.gz) and its tables of events as truth."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import InputError
from engine.text import plain
from stream.annotations.timed_label import TimedLabel, Wanted, apex_within, face_of, listed

EXPRESSION = "expression"
"""The category of behaviours that is read where a file has it; else all behaviours are."""
APEX = "apex"
MAX_BYTES = 256_000_000
"""The most that a compressed project may hold."""


class Coded(NamedTuple):
    """An event as BORIS keeps it; state says whether it is the start or stop of something, not a moment."""

    t: float
    subject: str
    behaviour: str
    modifier: str
    category: str
    state: bool


def read_project(path: Path, wanted: Wanted) -> list[TimedLabel]:
    """The state events of an observation of a project; which one is `wanted`'s, or that of the video, or the only one.

    Raises InputError.
    """
    try:
        project = json.loads(_content(path))
        behaviours = {one["code"]: one for one in project["behaviors_conf"].values()}
        observation = _observation(project["observations"], wanted)
        offset = float(observation.get("time offset") or 0)
        coded = [_coded(event, behaviours, offset) for event in observation["events"]]
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError, EOFError, zlib.error) as error:
        raise InputError("it is damaged or no BORIS project") from error
    return timed_labels(coded, wanted)


def timed_labels(coded: Sequence[Coded], wanted: Wanted) -> list[TimedLabel]:
    """States paired as BORIS does, the second of a subject, behaviour and modifier ends the first; each with the apex of its
    subject within. Raises InputError where one has no end, or where nothing of what is wanted was coded."""
    chosen = _chosen(coded, wanted)
    apexes: dict[str, list[float]] = {}
    for one in sorted(coded, key=lambda one: one.t):
        if not one.state and one.behaviour.casefold() == APEX:
            apexes.setdefault(one.subject, []).append(one.t)
    open_: dict[tuple[str, str, str], float] = {}
    found = []
    for one in sorted(chosen, key=lambda one: one.t):
        key = one.subject, one.behaviour, one.modifier
        if key in open_:
            start = open_.pop(key)
            apex = apex_within(start, one.t, apexes.get(one.subject, ()))
            found.append(TimedLabel(start, one.t, one.behaviour, apex, face_of(one.subject)))
        else:
            open_[key] = one.t
    for (subject, behaviour, _), t in open_.items():
        raise InputError(f"the state {plain(behaviour)!r} of {plain(subject) or 'no subject'!r} at {t:.3f} s has no stop")
    return sorted(found, key=lambda one: (one.start, one.end))


def _chosen(coded: Iterable[Coded], wanted: Wanted) -> list[Coded]:
    states = [one for one in coded if one.state]
    names = dict.fromkeys(name for one in states for name in (one.behaviour, one.category) if name)
    if missing := [name for name in wanted.tiers if name not in names]:
        raise InputError(f"it has no state event or category {plain(missing[0])!r}; it has {listed(names) or 'none'}")
    kept = wanted.tiers or ((EXPRESSION,) if EXPRESSION in names else ())
    return [one for one in states if not kept or {one.behaviour, one.category} & set(kept)]


def _content(path: Path) -> bytes:
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    with gzip.open(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError("it is too large for a BORIS project")
    return content


def _observation(observations: Mapping[str, Mapping[str, Any]], wanted: Wanted) -> Mapping[str, Any]:
    if wanted.observation is not None:
        if wanted.observation not in observations:
            raise InputError(f"it has no observation {plain(wanted.observation)!r}; it has {listed(observations) or 'none'}")
        return observations[wanted.observation]
    of_video = [one for one in observations.values() if wanted.video and wanted.video in _media(one)]
    candidates = of_video or list(observations.values())
    if len(candidates) != 1:
        problem = "several observations; choose one by --observation: " if candidates else "no observation"
        raise InputError(f"it has {problem}{listed(observations)}")
    return candidates[0]


def _media(observation: Mapping[str, Any]) -> set[str]:
    """The names of the files of an observation, whatever system wrote them."""
    players = observation.get("file")
    files = [path for paths in players.values() for path in paths] if isinstance(players, dict) else []
    return {str(path).replace("\\", "/").rpartition("/")[2] for path in files}


def _coded(event: Sequence[Any], behaviours: Mapping[str, Mapping[str, Any]], offset: float) -> Coded:
    """An event of a project; offset, in seconds, is what BORIS added to the times of the player."""
    t, subject, code, modifier = event[:4]
    behaviour = behaviours.get(code, {"type": "State event"})
    state = str(behaviour["type"]).startswith("State")
    return Coded(float(t) - offset, str(subject), str(code), str(modifier), str(behaviour.get("category", "")), state)
