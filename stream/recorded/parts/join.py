"""The steps of a video's parts, joined to those of the whole.

Two neighbouring parts overlap. In the overlap the same faces are known by the places where both parts see them, and the later
part takes over at a moment, near the planned one, at which neither sees an expression, nor another activity if there is such a
moment. From then on frames, faces and events are numbered on; a face that comes later is known by how it looks.

    an expression   is of the part in which it begins
    an activity     is of the part in which it ends, and begins where the earlier part saw it begin
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.pipeline import event_id, statistics
from engine.types import F32, Activity, ActivityKind, Event, Mark, Observation
from stream.recorded.parts.looks import KnownFaces
from stream.recorded.parts.plan import JOIN_S, TAIL_S, WARM_S
from stream.recorded.passage import Ending, Found, Seen, Step, Steps
from stream.sources.facts import ReadCounts, Reading

AROUND_S = 0.6
"""So near an expression no part takes over: its curve of motion is drawn from a little before to a little after it."""
RECENT = 64
"""Events that are kept to know those that two parts have."""
ACTIVE_S = 0.1
"""So near an activity no part takes over, if that can be."""
SAME_FACE = 0.4
"""Two boxes show one face where they have this share of the area in common that both cover."""

Box = tuple[float, float, float, float]


def joined(seams: Sequence[float], parts: Iterable[Iterable[Step]], *, stream: str) -> Steps:
    """The steps of the whole video, by those of its parts and the planned moments between them, seconds of the source; of
    events the final ones. stream names their source. The steps end with the last part, or the first that is
    not complete."""
    whole, drawn = _Whole(stream), (_Part(steps) for steps in parts)
    part = next(drawn)
    for seam in seams:
        part.watch(seam - JOIN_S - WARM_S)
        yield from whole.add(part.before(seam - JOIN_S))
        part.draw(math.inf)
        after = next(drawn, None) if part.complete else None
        if after is None:
            break
        after.watch(-math.inf)
        after.skip(seam - JOIN_S)
        after.draw(seam + JOIN_S + TAIL_S)
        at = _take_over(part, after, seam)
        if not any(seen.frame.t >= at for seen in after.frames()):  # it was stopped, or broke off, before its time
            whole.break_off(after)
            break
        yield from whole.add(part.before(at))
        after.skip(at)
        yield whole.hand_over(part, after, at)
        part = after
    yield from whole.add(part.before(math.inf))
    yield whole.left()
    yield whole.ending(part)


@dataclass(eq=False)
class _Part:
    """The steps of a part: those that are drawn and not yet used. boxes are those of its faces by time, looks how each looked
    first; last is the last frame that was used or skipped."""

    source: Iterable[Step]
    steps: deque[Seen | Found] = field(default_factory=deque)
    boxes: dict[float, dict[int, Box]] = field(default_factory=dict)
    looks: dict[int, F32] = field(default_factory=dict)
    last: Seen | None = None
    ending: Ending | None = None

    def __post_init__(self) -> None:
        self._drawn = iter(self.source)
        self._watch_from = math.inf
        self._latest = -math.inf

    def watch(self, t: float) -> None:
        """From t on, keep where faces are."""
        self._watch_from = t
        self.boxes = {}
        for step in self.steps:
            self._note(step)

    def draw(self, t: float) -> None:
        """Have all steps before t, and one more frame."""
        while self._latest < t and self.ending is None:
            step = next(self._drawn)
            if isinstance(step, Ending):
                self.ending = step
            else:
                self.steps.append(step)
                self._note(step)

    def before(self, t: float) -> Iterator[Seen | Found]:
        """Use the steps before t."""
        while True:
            if not self.steps:
                self.draw(math.nextafter(self._latest, math.inf))
            if not self.steps or (isinstance(self.steps[0], Seen) and self.steps[0].frame.t >= t):
                return
            step = self.steps.popleft()
            if isinstance(step, Seen):
                self.last = step
            yield step

    def skip(self, t: float) -> None:
        """Leave out the steps before t."""
        for _ in self.before(t):
            pass

    @property
    def complete(self) -> bool:
        """Whether it was read to its end."""
        return self.ending is not None and not self.ending.stopped and self.ending.failure is None

    def found(self) -> tuple[list[Event], list[Activity]]:
        """The final events and the activities in the steps that are drawn."""
        found = [step for step in self.steps if isinstance(step, Found)]
        events = [event for one in found for event in one.events if event.state == "final"]
        return events, [activity for one in found for activity in one.activities]

    def frames(self) -> list[Seen]:
        """The frames that are drawn."""
        return [step for step in self.steps if isinstance(step, Seen)]

    def _note(self, step: Seen | Found) -> None:
        if isinstance(step, Seen):
            self._latest = step.frame.t
            for face, look in step.looks.items():
                self.looks.setdefault(face, look)
            if step.frame.t >= self._watch_from:
                self.boxes[round(step.frame.t, 4)] = {one.face: one.box for one in step.observations}


def _take_over(part: _Part, after: _Part, seam: float) -> float:
    """When the part after takes over: at a frame of both, where the fewest expressions begin nearby, and the fewest expressions
    and then activities are under way, nearest to the planned moment; at that where there is no frame of both."""
    ours, theirs = part.found(), after.found()
    expressions = [(one.onset.t - AROUND_S, (one.offset or one.apex).t + AROUND_S) for one in (*ours[0], *theirs[0])]
    onsets = [(one.onset.t - AROUND_S, one.onset.t + AROUND_S) for one in (*ours[0], *theirs[0])]
    activities = [(one.start.t - ACTIVE_S, one.end.t + ACTIVE_S) for one in (*ours[1], *theirs[1])]
    times = {one.frame.t for one in part.frames()} & {one.frame.t for one in after.frames()}

    def disturbs(t: float) -> tuple[int, int, int, float]:
        return _under_way(onsets, t), _under_way(expressions, t), _under_way(activities, t), abs(t - seam)

    return min((t for t in times if abs(t - seam) <= JOIN_S), key=disturbs, default=seam)


def _under_way(spans: Sequence[tuple[float, float]], t: float) -> int:
    return sum(start < t <= end for start, end in spans)


def _same_faces(ours: _Part, theirs: _Part) -> dict[int, int]:
    """Faces of one part by those of another: those that are in the same place, more often than not and than others."""
    together: Counter[tuple[int, int]] = Counter()
    seen: Counter[int] = Counter()
    for t, boxes in theirs.boxes.items():
        seen.update(list(boxes) if t in ours.boxes else ())
        for face, box in boxes.items():
            for other, there in ours.boxes.get(t, {}).items():
                together[face, other] += _common(box, there) >= SAME_FACE
    same: dict[int, int] = {}
    for (face, other), count in together.most_common():
        if 2 * count > seen[face] and face not in same and other not in same.values():
            same[face] = other
    return same


def _common(one: Box, other: Box) -> float:
    """The area that two boxes share, over the area that both cover."""
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    return wide * high / (one[2] * one[3] + other[2] * other[3] - wide * high)


class _Whole:
    """Numbers the steps of one part after the other, and counts."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._begin = -math.inf  # of the part whose steps come now,
        self._shift = 0  # by how much the numbers of its frames are less than those in the whole,
        self._ids: dict[int, int] = {}  # its faces' numbers in the whole,
        self._before = ReadCounts()  # what was counted until it took over,
        self._less = ReadCounts()  # and what it had counted itself by then, which is no part of that,
        self._gaps_less = 0  # and likewise the gaps
        self._gaps = 0
        self._tally: Counter[str] = Counter()
        self._acted: Counter[ActivityKind] = Counter()
        self._spans: Counter[int] = Counter()  # events of each face
        self._first: Reading | None = None  # of the first frame
        self._spent_s = 0.0
        self._faces = 0
        self._looks: Mapping[int, F32] = {}  # of the part's faces
        self._known = KnownFaces()
        self._carried: list[Activity] = []  # of the part before, that go on in this one
        self._recent: deque[Event] = deque(maxlen=RECENT)  # the last events,
        self._taken: list[Event] = []  # and those that were the last when the part took over
        self._number = -1  # of the last frame
        self._broke_off: Ending | None = None  # of a part that ended before its time

    def add(self, steps: Iterable[Seen | Found]) -> Iterator[Seen | Found]:
        """Steps of the part as those of the whole."""
        for step in steps:
            if isinstance(step, Seen):
                yield self._seen(step)
            else:
                yield self._found(step.events, self._activities(step.activities))

    def hand_over(self, part: _Part, after: _Part, at: float) -> Found:
        """What the part found of the time before at, but later. From now on the other one's steps are added."""
        events, activities = part.found()
        before = [event for event in after.found()[0] if event.onset.t < at]
        ids = {theirs: self._ids[ours] for theirs, ours in _same_faces(part, after).items() if ours in self._ids}
        later = [replace(one, face=ids[one.face]) for one in _deeds(after) if one.face in ids and one.end >= at]
        mine, carried = list[Activity](), list[Activity]()
        for activity in self._activities(one for one in activities if one.start.t < at):
            goes_on = activity.end.t >= at and any(_goes_on(activity, deed) for deed in later)
            (carried if goes_on else mine).append(activity)
        mine += self._carried  # which no later activity went on with
        numbered = [replace(event, face=ids[event.face]) for event in before if event.face in ids]
        chosen = [
            event
            for event in events
            if event.onset.t < at
            or (event.face in self._ids and _is_one_of(replace(event, face=self._ids[event.face]), numbered))
        ]
        found = self._found(chosen, mine)
        self._taken = list(self._recent)
        if part.ending is not None:
            self._spent_s += part.ending.spent_s
        if part.last is not None:
            self._before += part.last.reading.counts - self._less
            self._gaps += part.last.statistics["gaps"] - self._gaps_less
        here = after.last or next(iter(after.frames()))
        self._shift = self._number - here.frame.index + (after.last is None)
        self._less = ReadCounts() if after.last is None else after.last.reading.counts
        self._gaps_less = 0 if after.last is None else after.last.statistics["gaps"]
        self._begin, self._ids, self._carried, self._looks = at, ids, carried, after.looks
        return found

    def break_off(self, part: _Part) -> None:
        """The part ended before it could take over."""
        self._broke_off = part.ending

    def left(self) -> Found:
        """The activities that no later one went on with."""
        left, self._carried = self._carried, []
        return self._found([], left)

    def ending(self, part: _Part) -> Ending:
        """How the whole ended, by the last part."""
        last = part.ending
        assert last is not None  # its steps were used to their end
        broke_off = self._broke_off
        return replace(
            last,
            reading=self._reading(last.reading),
            statistics=self._statistics(last.statistics["gaps"]),
            failure=last.failure if broke_off is None else broke_off.failure,
            stopped=last.stopped or (broke_off is not None and broke_off.stopped),
            spent_s=self._spent_s + last.spent_s,
        )

    def _reading(self, reading: Reading) -> Reading:
        """How reading the whole went, by that of the part."""
        first = self._first = self._first or reading
        counts = self._before + (reading.counts - self._less)
        return replace(reading, start=first.start, origin=first.origin, counts=counts)

    def _statistics(self, gaps: int) -> dict[str, int]:
        """Those of the whole; gaps as the part has them."""
        tally = {**self._tally, "gaps": self._gaps + gaps - self._gaps_less}
        return statistics(tally, self._faces, self._acted)

    def _seen(self, step: Seen) -> Seen:
        self._tally["frames"] += 1
        self._number = step.frame.index + self._shift
        for face, look in step.looks.items():
            self._known.add(self._id(face), look, alone=len(step.faces) == 1)
        self._tally["frames_with_face"] += bool(step.faces)
        self._tally["repeated"] += bool(step.faces) and all(face.repeated for face in step.faces)
        return Seen(
            frame=replace(step.frame, index=self._number),
            faces=sorted((replace(face, id=self._id(face.id)) for face in step.faces), key=lambda face: face.id),
            observations=sorted((self._observation(one) for one in step.observations), key=lambda one: one.face),
            reading=self._reading(step.reading),
            statistics=self._statistics(step.statistics["gaps"]),
        )

    def _observation(self, seen: Observation) -> Observation:
        face, mark, crop = self._id(seen.face), self._mark(seen.mark), seen.crop
        return replace(seen, face=face, mark=mark, crop=None if crop is None else replace(crop, face=face, mark=mark))

    def _found(self, events: Iterable[Event], activities: Iterable[Activity]) -> Found:
        """Events of the part, as far as they begin in its time, as of the whole, and activities of the whole."""
        new = [event for event in events if event.onset.t >= self._begin]
        self._tally.update(event.state for event in new if event.state != "final")
        final = [event for event in new if event.state == "final"]
        final = [event for event in final if not _is_one_of(replace(event, face=self._id(event.face)), self._taken)]
        final = [self._event(event) for event in final]
        self._tally["final"] += len(final)
        self._recent += final
        self._tally["truncated"] += sum(event.truncated for event in final)
        ended = list(activities)
        self._acted.update(one.kind for one in ended)
        return Found(final, ended)

    def _event(self, event: Event) -> Event:
        face = self._id(event.face)
        ordinal = self._spans[face]
        self._spans[face] += 1
        return replace(
            event,
            id=event_id("", self._stream, face, ordinal),
            face=face,
            onset=self._mark(event.onset),
            apex=self._mark(event.apex),
            offset=None if event.offset is None else self._mark(event.offset),
        )

    def _activities(self, activities: Iterable[Activity]) -> Iterator[Activity]:
        """Activities of the part, as far as they end in its time, as of the whole."""
        return (self._activity(one) for one in activities if one.end.t >= self._begin)

    def _activity(self, one: Activity) -> Activity:
        """An activity as of the whole, from where the part before saw it begin."""
        activity = replace(one, face=self._id(one.face), start=self._mark(one.start), end=self._mark(one.end))
        for before in self._carried:
            if (before.face, before.kind) == (activity.face, activity.kind) and activity.start.t <= before.end.t:
                self._carried.remove(before)
                return replace(activity, start=before.start)
        return activity

    def _mark(self, mark: Mark) -> Mark:
        return Mark(mark.frame + self._shift, mark.t)

    def _id(self, face: int) -> int:
        """The number in the whole of a face of the part: that of one that looks the same and is none of the others, else the
        next free one."""
        if face not in self._ids:
            known = self._known.like(self._looks[face], self._ids) if face in self._looks else None
            self._ids[face] = self._faces if known is None else known
            self._faces += known is None
        return self._ids[face]


def _is_one_of(event: Event, others: Sequence[Event]) -> bool:
    """Whether others have the same expression: of the same face, and overlapping by half."""
    return any(event.face == other.face and _overlap(event, other) >= 0.5 for other in others)


def _overlap(one: Event, other: Event) -> float:
    """Intersection over union of the times of two events."""
    starts = one.onset.t, other.onset.t
    ends = (one.offset or one.apex).t, (other.offset or other.apex).t
    return max(0.0, min(ends) - max(starts)) / max(max(ends) - min(starts), 1e-9)


def _goes_on(activity: Activity, deed: _Deed) -> bool:
    """Whether a deed of the other part, its face numbered as in the whole, is the same as an activity."""
    return (deed.face, deed.kind) == (activity.face, activity.kind) and deed.start <= activity.end.t


@dataclass(frozen=True)
class _Deed:
    """What a face of a part does, from start to end; without end while it goes on."""

    face: int
    kind: ActivityKind
    start: float
    end: float


def _deeds(part: _Part) -> Iterator[_Deed]:
    """The activities in the steps that are drawn, and those under way in the last frame."""
    for one in part.found()[1]:
        yield _Deed(one.face, one.kind, one.start.t, one.end.t)
    last = {seen.face: seen.doing for frame in part.frames() for seen in frame.observations}
    for face, doing in last.items():
        for kind, since in doing.items():
            yield _Deed(face, kind, since, math.inf)
