"""The way from a frame to an expression event. Read this file first.

    frame -> locate -> register -> observe -> recognize -> event

`Pipeline.feed` takes one frame through all stages. It does no I/O, starts no thread and reads no clock: time comes in with
the frame, so live capture, recorded video and tests run the same way. A driver may run `locate`, the heavy stage, on a
thread of its own and hand its result to `advance`: `feed` is nothing but the two in a row.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from engine.activity.watch import ActivityWatch
from engine.config import PipelineSettings, load_settings, parse_settings
from engine.faces.landmarks import FaceLocator
from engine.kernels import machine_code
from engine.recognition.recognizer import Recognition, Recognizer
from engine.registration.align import Registrar
from engine.ring import Ring
from engine.spotting.decision import SPOKEN_SHARE, Decision
from engine.spotting.judge import judge_network
from engine.spotting.spotter import BREAK_S
from engine.types import ACTIVITY_KINDS, F32, U8, Activity, ActivityKind, Crop, Event, Face, Frame, Mark, Span

ONSET_REACH_S = 0.07  # crops this long before the onset stand for the resting face
GAP_S = 1.0  # frames further apart than this, and than so many times
GAP_STEPS = 3.0  # the step before, are a gap, whether the source says so or not
APEX_REACH_S = 0.025  # crops this near the apex stand for it
UNSURE_S = 0.2  # after a break the face is watched for so long before a motion is taken to begin: it may have before
EVIDENCE = 8  # of so many spans recognized last, the pictures are kept
MOST_ACTIVITIES = 4096  # that wait to be asked for


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an event was recognized from: the registered face at onset and apex, [128, 128] grey, and its own flow
    [2, 128, 128] of (u, v) from one to the other, in pixels of the crop."""

    onset: U8
    apex: U8
    flow: F32


@dataclass(frozen=True, eq=False)
class _Answered:
    """What was recognized last of a face: its marks, how many crops there were at the apex, and what came of it."""

    onset: Mark
    apex: Mark
    crops: int
    answer: Recognition
    behind: Evidence


@dataclass(eq=False)
class _Watch:
    """All that is kept of one face. What begins before unsure_until, just after a break, was under way before it; announced is
    the last span that was told before it was over."""

    decision: Decision
    ring: Ring[Crop]
    activity: ActivityWatch = field(default_factory=ActivityWatch)
    registrar: Registrar | None = None
    seen_t: float = 0.0
    last: _Answered | None = None
    unsure_until: float = -math.inf
    announced: int = -1


class Pipeline:
    """From the frames of one source to expression events. Make one with `from_config`; `close` frees the models.

    A driver that loads the models itself, side by side, hands them over as recognizer and locator.
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
        self._locator = locator or FaceLocator(settings.landmarks)
        self._judge = judge_network(settings.spotter.judge)
        machine_code()  # compiled or loaded now, not with the first face
        self._faces: dict[int, _Watch] = {}
        self._t: float | None = None
        self._step = 0.0
        self._counts = {
            "frames": 0,
            "frames_with_face": 0,
            "repeated": 0,
            "gaps": 0,
            "provisional": 0,
            "final": 0,
            "truncated": 0,
        }
        self._ids: set[int] = set()
        self._ordinals: dict[int, int] = {}  # the next span's, of faces that left
        self._activities: deque[Activity] = deque(maxlen=MOST_ACTIVITIES)
        self._acted: Counter[ActivityKind] = Counter()
        self._evidence: dict[str, Evidence] = {}

    @classmethod
    def from_config(
        cls, config: str | Path | dict[str, Any] | PipelineSettings | None = None, *, stream: str = "video", session: str = ""
    ) -> Pipeline:
        """A pipeline from a TOML file, a dictionary, settings, or the defaults.

        stream names the source in events; session makes event ids differ between runs of a live service. Raises ConfigError,
        WeightsError or BackendError.
        """
        if config is None:
            settings = PipelineSettings()
        elif isinstance(config, PipelineSettings):
            settings = config
        elif isinstance(config, dict):
            settings = parse_settings(config)
        else:
            settings = load_settings(Path(config))
        return cls(settings, stream=stream, session=session)

    @property
    def model(self) -> str:
        """The network's name and content hash, as events carry it."""
        return self._recognizer.model

    @property
    def backend(self) -> str:
        """The runtime that runs the network."""
        return self._recognizer.runner.backend

    @property
    def statistics(self) -> dict[str, int]:
        """Counts since the start: frames, frames_with_face, those of them that show no face otherwise than
        the frame before (repeated), faces, gaps, provisional, final and truncated spans, and activities by kind."""
        acted = {"blinks" if kind == "blink" else kind: self._acted[kind] for kind in ACTIVITY_KINDS}
        return {**self._counts, "faces": len(self._ids), **acted}

    def feed(self, frame: Frame) -> list[Event]:
        """One frame through all stages; returns the events it made sure. Frames come in order."""
        return self.advance(frame, self.locate(frame))

    def locate(self, frame: Frame) -> list[Face]:
        """Stage 1, the heavy one: the faces in the frame. May run on another thread than `advance`, frame by frame."""
        return self._locator.locate(frame)

    def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
        """The other stages: register each face, observe its motion, recognize what was spotted."""
        events: list[Event] = []
        if self._t is not None:
            step = frame.t - self._t
            if frame.gap or step <= 0 or step > max(GAP_S, GAP_STEPS * self._step):
                self._counts["gaps"] += 1
                events += self._break_off(frame.t)
            self._step = step
        self._t = frame.t
        self._counts["frames"] += 1
        self._counts["frames_with_face"] += bool(faces)
        self._counts["repeated"] += bool(faces) and all(face.repeated for face in faces)
        for face in faces:
            events += self._advance_face(frame, face)
        return events + self._let_go(frame.t)

    def foresee(self) -> None:
        """Recognizes what would be announced next, before it is sure: its event need not wait for that then.

        For a driver with time to spare between two frames; events are the same without it.
        """
        for watch in self._faces.values():
            marks = watch.decision.pending()
            if marks is not None:
                self._recognized(watch, *marks)

    def look_around(self, frame: Frame) -> None:
        """Looks for new faces in the frame that was located last, if it is time to: `locate` need not do that then.

        For a driver with time to spare between two frames, on the thread of `locate`.
        """
        self._locator.look_around(frame)

    def flush(self) -> list[Event]:
        """The source has ended: what is still open becomes final, truncated."""
        return self._break_off()

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
        return {id_: watch.activity.doing() for id_, watch in self._faces.items()}

    def trace(self) -> dict[int, tuple[float, float]]:
        """What the spotter sees now, by face: loudness (1 is its threshold) and the largest regional motion in crop pixels."""
        return {id_: (watch.decision.loudness, watch.decision.moved_px) for id_, watch in self._faces.items()}

    def evidence(self, event: str) -> Evidence | None:
        """The pictures behind the event of this id; None unless it is among the last few recognized.

        An event that is announced and then made final with the same onset and apex has the very same evidence.
        """
        return self._evidence.get(event)

    def _advance_face(self, frame: Frame, face: Face) -> list[Event]:
        watch = self._faces.get(face.id)
        if watch is None:
            longest = self.settings.spotter.longest_s
            activity = ActivityWatch()
            decision = Decision(self.settings.spotter, self._judge, activity.spoke, self._ordinals.get(face.id, 0))
            watch = self._faces[face.id] = _Watch(decision, Ring(longest + 4.0), activity)
            self._ids.add(face.id)
        events: list[Event] = []
        if face.apart and watch.registrar is not None:
            self._counts["gaps"] += 1
            events += self._finish(face.id, watch, resumes=frame.t)
        if watch.registrar is None:
            watch.registrar = Registrar()
        crop = watch.registrar.register(frame, face)
        if crop is None:
            return events
        watch.seen_t = frame.t
        watch.ring.append(frame.t, crop)
        self._note(watch.activity.observe(crop, voice=frame.voice))
        return events + self._recognize(watch, face.id, watch.decision.observe(crop))

    def _recognize(self, watch: _Watch, face: int, spans: list[Span]) -> list[Event]:
        self._note(watch.decision.motions)
        watch.decision.motions.clear()
        events: list[Event] = []
        for span in spans:
            if span.onset.t < watch.unsure_until and span.ordinal != watch.announced:
                continue
            if span.state == "provisional":
                watch.announced = span.ordinal
            self._counts[span.state] += 1
            self._counts["truncated"] += span.truncated
            answer, behind = self._recognized(watch, span.onset, span.apex)
            event = self._event(face, span, answer, speaking=self._spoke(watch, span))
            events.append(event)
            self._keep(event.id, behind)
        return events

    def _recognized(self, watch: _Watch, onset: Mark, apex: Mark) -> tuple[Recognition, Evidence]:
        """The answer for an onset and apex of one face, and what it stands on; the last one is not worked out again, unless it
        was foreseen so early that the apex has got more crops since."""
        resting, moved = self._nearest(watch, onset), self._nearest(watch, apex)
        after = watch.ring.between(apex.t - APEX_REACH_S, apex.t + APEX_REACH_S) or [moved]
        known = watch.last
        if known is None or (known.onset, known.apex) != (onset, apex) or known.crops < len(after):
            before = watch.ring.between(onset.t - ONSET_REACH_S, onset.t) or [resting]
            answer = self._recognizer.recognize(before, after, watch.ring.between(onset.t, apex.t)[1:-1])
            behind = Evidence(resting.pixels, moved.pixels, answer.flow)
            known = watch.last = _Answered(onset, apex, len(after), answer, behind)
        return known.answer, known.behind

    def _keep(self, event: str, evidence: Evidence) -> None:
        self._evidence.pop(event, None)
        self._evidence[event] = evidence
        if len(self._evidence) > EVIDENCE:
            del self._evidence[next(iter(self._evidence))]

    def _nearest(self, watch: _Watch, mark: Mark) -> Crop:
        """The crop nearest to a moment; the oldest one where the ring no longer reaches back to it."""
        return watch.ring.nearest(mark.t) or next(iter(watch.ring))

    def _spoke(self, watch: _Watch, span: Span) -> bool:
        """Whether the face speaks during a span, as far as it is known."""
        end = max((span.offset or span.apex).t, span.onset.t + 1e-3)
        return watch.activity.spoke(span.onset.t, end) >= SPOKEN_SHARE

    def _note(self, ended: list[Activity]) -> None:
        self._activities += ended
        self._acted.update(one.kind for one in ended)

    def _event(self, face: int, span: Span, answer: Recognition, *, speaking: bool) -> Event:
        name = f"{self._session}/{self.stream}/{face}/{span.ordinal}"
        return Event(
            id=str(uuid5(NAMESPACE_URL, name)),
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
        )

    def _let_go(self, now: float) -> list[Event]:
        """Faces not seen for a while: what they had open ends; those gone for good are forgotten."""
        events: list[Event] = []
        for id_, watch in list(self._faces.items()):
            away = now - watch.seen_t
            if watch.registrar is not None and away > BREAK_S:
                events += self._finish(id_, watch)
            if away < 0 or away > self.settings.landmarks.keep_s + 2.0:
                del self._faces[id_]
                self._ordinals[id_] = watch.decision.ordinal
        return events

    def _finish(self, face: int, watch: _Watch, resumes: float = -math.inf) -> list[Event]:
        """Ends what a face has open; resumes is when it goes on, where it was seen all the while."""
        self._note(watch.activity.finish())
        events = self._recognize(watch, face, watch.decision.finish())
        watch.registrar, watch.last = None, None
        watch.ring.clear()
        watch.unsure_until = resumes + UNSURE_S
        return events

    def _break_off(self, resumes: float = -math.inf) -> list[Event]:
        """A gap, a jump in time or the end: nothing on this side may be paired with anything on the other."""
        events: list[Event] = []
        for id_, watch in self._faces.items():
            events += self._finish(id_, watch, resumes)
        return events
