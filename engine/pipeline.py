"""The way from a frame to an expression event. Read this file first.

    frame -> locate -> register -> observe -> recognize -> event

    locate     the faces in the frame                                            engine.faces
    register   each face's crop, the head's motion taken out                     engine.registration
    observe    spans of the crop's motion from onset to offset, activities       engine.spotting, engine.activity
    recognize  which expression a span shows, by its crops at onset and apex     engine.recognition

`Pipeline.feed` takes one frame through all stages. It does no I/O, leaves no thread behind and reads no clock: time comes with
the frame, so live capture, recorded video and tests run the same way. A driver may run `locate`, the heavy stage, on a
thread of its own and hand its result to `advance`: `feed` is nothing but the two in a row.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from engine.activity.watch import ActivityWatch, Hindrance
from engine.config import PipelineSettings, load_settings, parse_settings
from engine.faces.landmarks import FaceLocator
from engine.kernels import machine_code
from engine.recognition.recognizer import Recognition, Recognizer
from engine.registration.align import Registrar
from engine.ring import Ring
from engine.spotting.decision import SPOKEN_SHARE, Decision
from engine.spotting.judge import judge_network
from engine.spotting.spotter import BREAK_S
from engine.types import ACTIVITY_KINDS, Activity, ActivityKind, Crop, Event, Evidence, Face, Frame, Mark, Observation, Span

ONSET_REACH_S = 0.07  # crops this long before the onset stand for the resting face
GAP_S = 1.0  # frames further apart than this, and than so many times
GAP_STEPS = 3.0  # the step before, are a gap, whether the source says so or not
APEX_REACH_S = 0.025  # crops this near the apex stand for it
HINDRANCE_DELAY_S = 0.15  # in which a hand or turn at the apex is seen at the latest
UNSURE_S = 0.2  # after a break the face is watched for so long before a motion is taken to begin: it may have before
COUNTS = ("frames", "frames_with_face", "repeated", "gaps", "provisional", "final", "truncated")
MAX_ACTIVITIES = 4096  # that wait for a call of `activities`


@dataclass(frozen=True, eq=False)
class _Answer:
    """What was recognized last of a face: its marks, how many crops there were at the apex, what kept the face from being seen
    well, and what came of it."""

    onset: Mark
    apex: Mark
    crops: int
    hindrance: Hindrance | None
    answer: Recognition
    evidence: Evidence


@dataclass(eq=False)
class _FaceState:
    """All that is kept of one face. What begins before unsure_until, just after a break, was under way before it; announced is
    the last span that had a provisional event."""

    id: int
    decision: Decision
    ring: Ring[Crop]
    activity: ActivityWatch
    registrar: Registrar | None = None
    seen_t: float = 0.0
    last: _Answer | None = None
    unsure_until: float = -math.inf
    announced: int = -1


class Pipeline:
    """From the frames of one source to expression events. Make one with `from_config`; `close` frees the models.

    A driver that loads the models itself, side by side, hands them over as recognizer and locator. `model` is the network's
    name and content hash, as events carry it.
    """

    def __init__(
        self,
        settings: PipelineSettings,
        *,
        stream: str = "video",
        session: str = "",
        recognizer: Recognizer | None = None,
        locator: FaceLocator | None = None,
    ) -> None:
        self.settings = settings
        self.stream = stream
        self._session = session
        self._recognizer = recognizer or Recognizer(settings.recognizer)  # the likelier to fail, and quickly
        self.model = self._recognizer.model
        self._locator = locator or FaceLocator(settings.landmarks)
        self._judge = judge_network(settings.spotter.judge)
        machine_code()  # compiled or loaded now, not with the first face
        self._faces: dict[int, _FaceState] = {}
        self._t: float | None = None
        self._step = 0.0
        self._counts = dict.fromkeys(COUNTS, 0)
        self._ids: set[int] = set()
        self._ordinals: dict[int, int] = {}  # the next span's, of faces that left
        self._activities: deque[Activity] = deque(maxlen=MAX_ACTIVITIES)
        self._acted: Counter[ActivityKind] = Counter()
        self._advanced: list[tuple[Mark, _FaceState, Face, Crop | None]] = []  # the faces of the frame advanced last

    @classmethod
    def from_config(
        cls, config: str | Path | dict[str, Any] | PipelineSettings | None = None, *, stream: str = "video", session: str = ""
    ) -> Pipeline:
        """A pipeline from a TOML file, a dictionary, settings, or the defaults.

        stream names the source in events; session makes event ids differ between runs of a live service. Raises ConfigError,
        WeightsError or BackendError.
        """
        if isinstance(config, PipelineSettings):
            settings = config
        elif config is None or isinstance(config, dict):
            settings = parse_settings(config or {})
        else:
            settings = load_settings(Path(config))
        return cls(settings, stream=stream, session=session)

    @property
    def backend(self) -> str:
        """The runtime that runs the network."""
        return self._recognizer.runner.backend

    @property
    def statistics(self) -> dict[str, int]:
        """Counts since the start: frames, frames_with_face, those of them that show no face otherwise than
        the frame before (repeated), faces, gaps, provisional, final and truncated spans, and activities by kind."""
        return statistics(self._counts, len(self._ids), self._acted)

    def feed(self, frame: Frame) -> list[Event]:
        """One frame through all stages; returns the events it made sure. Frames come in order."""
        return self.advance(frame, self.locate(frame))

    def locate(self, frame: Frame) -> list[Face]:
        """Stage 1, the heavy one: the faces in the frame. May run on another thread than `advance`, frame by frame."""
        return self._locator.locate(frame)

    def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
        """Stages 2 to 4 for the faces in a frame; returns the events it made sure."""
        events = self._begin_frame(frame, faces)
        self._advanced = []
        for face in faces:
            state = self._state_of(face.id)
            if face.apart and state.registrar is not None:  # it shows another moment, not the next one
                self._counts["gaps"] += 1
                events += self._finish(state, resumes=frame.t)
            crop = self._register(state, frame, face)
            self._advanced.append((Mark(frame.index, frame.t), state, face, crop))
            if crop is not None:
                spans = self._observe(state, crop, frame.voice)
                events += self._recognize(state, spans)
        return events + self._end_absent(frame.t)

    def recognize_ahead(self) -> None:
        """Recognizes what may be announced next, before it is sure: its event then need not wait for the recognition.

        For a driver with time to spare between two frames; events are the same without it.
        """
        for state in self._faces.values():
            marks = state.decision.spotter.pending()
            if marks is not None:
                self._answer_for(state, *marks)

    def search_ahead(self, frame: Frame) -> None:
        """Searches for new faces in the frame that was located last, if it is time to: `locate` need not do that then.

        For a driver with time to spare between two frames, on the thread of `locate`.
        """
        self._locator.search_ahead(frame)

    def flush(self) -> list[Event]:
        """The source has ended: what is still open becomes final, truncated."""
        return self._finish_all()

    def close(self) -> None:
        """Frees the models."""
        self._locator.close()

    def activities(self) -> list[Activity]:
        """What faces did besides expressions: the activities that ended since the last call, as they ended."""
        ended = list(self._activities)
        self._activities.clear()
        return ended

    def doing(self) -> dict[int, dict[ActivityKind, float]]:
        """What each face does now, with the source time at which it began."""
        return {id_: state.activity.doing() for id_, state in self._faces.items()}

    def trace(self) -> dict[int, tuple[float, float]]:
        """What the spotter measures now, by face: loudness (1 is its threshold), the largest regional motion in crop pixels."""
        spotters = {id_: state.decision.spotter for id_, state in self._faces.items()}
        return {id_: (spotter.loudness, spotter.moved_px) for id_, spotter in spotters.items()}

    def observations(self) -> list[Observation]:
        """What is known of each face in the frame advanced last."""
        return [_observation(*seen) for seen in self._advanced]

    def _begin_frame(self, frame: Frame, faces: list[Face]) -> list[Event]:
        """Counts a frame and its faces; ends what is open where there is a gap before it."""
        events: list[Event] = []
        if self._t is not None:
            step = frame.t - self._t
            if frame.gap or step <= 0 or step > max(GAP_S, GAP_STEPS * self._step):
                self._counts["gaps"] += 1
                events = self._finish_all(frame.t)
            self._step = step
        self._t = frame.t
        self._counts["frames"] += 1
        self._counts["frames_with_face"] += bool(faces)
        self._counts["repeated"] += bool(faces) and all(face.repeated for face in faces)
        return events

    def _state_of(self, face: int) -> _FaceState:
        if face not in self._faces:
            spotter, activity = self.settings.spotter, ActivityWatch()
            decision = Decision(spotter, self._judge, activity.spoke, self._ordinals.get(face, 0))
            self._faces[face] = _FaceState(face, decision, Ring(spotter.longest_s + 4.0), activity)
            self._ids.add(face)
        return self._faces[face]

    def _register(self, state: _FaceState, frame: Frame, face: Face) -> Crop | None:
        """Stage 2: the registered crop of a face, None where it cannot be followed in this frame."""
        if state.registrar is None:
            state.registrar = Registrar()
        return state.registrar.register(frame, face)

    def _observe(self, state: _FaceState, crop: Crop, voice: float | None) -> list[Span]:
        """Stage 3: the spans that a crop made sure. Keeps the crop, and notes the activities that ended."""
        state.seen_t = crop.mark.t
        state.ring.append(crop.mark.t, crop)
        ended = state.activity.observe(crop, voice=voice)
        spans = state.decision.observe(crop)
        self._note(state, ended)
        return spans

    def _recognize(self, state: _FaceState, spans: list[Span]) -> list[Event]:
        """Stage 4: the event of each span, but of those that may have begun before a break."""
        events: list[Event] = []
        for span in spans:
            if span.onset.t < state.unsure_until and span.ordinal != state.announced:
                continue
            if span.state == "provisional":
                state.announced = span.ordinal
            self._counts[span.state] += 1
            self._counts["truncated"] += span.truncated
            found = self._answer_for(state, span.onset, span.apex)
            events.append(self._event(state.id, span, found, speaking=_spoke(state, span)))
        return events

    def _answer_for(self, state: _FaceState, onset: Mark, apex: Mark) -> _Answer:
        """The answer for an onset and apex of one face, and what it stands on; the last one is not computed again, unless it
        was computed so early that the apex has got more crops since, or a hindrance was seen since."""
        resting, moved = _nearest(state, onset), _nearest(state, apex)
        after = state.ring.between(apex.t - APEX_REACH_S, apex.t + APEX_REACH_S) or [moved]
        hindrance = state.activity.hindrance(onset.t, apex.t + HINDRANCE_DELAY_S)
        known = state.last
        if known is None or (known.onset, known.apex, known.hindrance) != (onset, apex, hindrance) or known.crops < len(after):
            before = state.ring.between(onset.t - ONSET_REACH_S, onset.t) or [resting]
            answer = self._recognizer.recognize(before, after, state.ring.between(onset.t, apex.t)[1:-1], hindrance)
            evidence = Evidence(resting.pixels, moved.pixels, answer.flow)
            known = state.last = _Answer(onset, apex, len(after), hindrance, answer, evidence)
        return known

    def _note(self, state: _FaceState, ended: list[Activity]) -> None:
        """Notes the activities that ended, and the motions that were judged to be no expression."""
        ended = [*ended, *state.decision.motions]
        state.decision.motions.clear()
        self._activities += ended
        self._acted.update(one.kind for one in ended)

    def _event(self, face: int, span: Span, found: _Answer, *, speaking: bool) -> Event:
        answer = found.answer
        return Event(
            id=event_id(self._session, self.stream, face, span.ordinal),
            stream=self.stream,
            face=face,
            state=span.state,
            kind=span.kind,
            onset=span.onset,
            apex=span.apex,
            offset=span.offset,
            label=answer.label,
            probabilities=answer.probabilities,
            confidence=answer.confidence,
            intensity=answer.intensity,
            model=self.model,
            truncated=span.truncated,
            why=answer.why,
            speaking=speaking,
            expression_probability=span.probability,
            evidence=found.evidence,
        )

    def _end_absent(self, now: float) -> list[Event]:
        """Ends what faces have open that were not seen for a while; forgets those that left for good."""
        events: list[Event] = []
        for id_, state in list(self._faces.items()):
            away = now - state.seen_t
            if state.registrar is not None and away > BREAK_S:
                events += self._finish(state)
            if away < 0 or away > self.settings.landmarks.keep_s + 2.0:
                del self._faces[id_]
                self._ordinals[id_] = state.decision.ordinal
        return events

    def _finish(self, state: _FaceState, resumes: float = -math.inf) -> list[Event]:
        """Ends what a face has open; resumes is when it goes on, where it was seen all the while."""
        ended, spans = state.activity.finish(), state.decision.finish()
        self._note(state, ended)
        events = self._recognize(state, spans)
        state.registrar, state.last = None, None
        state.ring.clear()
        state.unsure_until = resumes + UNSURE_S
        return events

    def _finish_all(self, resumes: float = -math.inf) -> list[Event]:
        """A gap, a jump in time or the end: nothing on this side may be paired with anything on the other."""
        return [event for state in self._faces.values() for event in self._finish(state, resumes)]


def event_id(session: str, stream: str, face: int, ordinal: int) -> str:
    """The id of the event of a face's span with that ordinal: the same whenever the same source is analysed."""
    return str(uuid5(NAMESPACE_URL, f"{session}/{stream}/{face}/{ordinal}"))


def statistics(counts: Mapping[str, int], faces: int, acted: Mapping[ActivityKind, int]) -> dict[str, int]:
    """What `Pipeline.statistics` returns, by COUNTS, the number of faces, and that of activities by kind."""
    by_kind = {"blinks" if kind == "blink" else kind: acted.get(kind, 0) for kind in ACTIVITY_KINDS}
    return {**{name: counts.get(name, 0) for name in COUNTS}, "faces": faces, **by_kind}


def _observation(mark: Mark, state: _FaceState, face: Face, crop: Crop | None) -> Observation:
    x, y = face.points[:, 0], face.points[:, 1]  # a ninth of the time of both at once
    left, top = float(x.min()), float(y.min())
    box = left, top, float(x.max()) - left, float(y.max()) - top
    spotter, doing = state.decision.spotter, state.activity.doing()
    return Observation(face.id, mark, box, crop, spotter.loudness, spotter.moved_px, doing, spotter.measured_t)


def _nearest(state: _FaceState, mark: Mark) -> Crop:
    """The crop nearest to a moment; the oldest one where the ring no longer reaches back to it."""
    return state.ring.nearest(mark.t) or next(iter(state.ring))


def _spoke(state: _FaceState, span: Span) -> bool:
    """Whether the face speaks during a span, as far as it is known."""
    end = max((span.offset or span.apex).t, span.onset.t + 1e-3)
    return state.activity.spoke(span.onset.t, end) >= SPOKEN_SHARE
