"""The report of an evaluation: one self-contained HTML page, and its pictures as PNG files.

OUT/report.html     for screens and phones, light or dark, offline
OUT/pictures/       confusion-*.png, subjects-*.png, reliability.png, most-wrong.png
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib import image

from engine.errors import OutputError
from training import figures
from training.answers import F64, Answers
from training.datasets import CLASSES, FlowMaps
from training.figures import DARK, LIGHT, Theme
from training.published import FIGURES, MAPS
from training.report import LEAK, Assessment, result_rows, verdict, without_maps

DATABASES = {"casme2": "CASME II", "samm": "SAMM", "smic": "SMIC", "casme3": "CAS(ME)³"}
"""Titles of databases; others are shown by their short name."""

MOST_WRONG = 12
"""Maps shown of those answered wrongly."""


@dataclass(frozen=True)
class Picture:
    """One picture of the page in both themes, as data URLs, and in words; stem is its file's name without .png."""

    stem: str
    alt: str
    light: str
    dark: str


@dataclass(frozen=True)
class Miss:
    """A map with a wrong answer: which map, the truth, the answer with its confidence, and the probability of the truth."""

    name: str
    subject: str
    truth: str
    answer: str
    confidence: float
    given_truth: float
    picture: str


def write_page(out: Path, found: Assessment, data: FlowMaps, provenance: dict[str, Any]) -> Path:
    """Write report.html and pictures/ into out and return the page's path; data are the maps that were tested, provenance as
    `training.provenance.write_provenance` gives it.

    OutputError where a file cannot be written.
    """
    drawn = _Drawn()
    page = _page(found, data, provenance, drawn)
    try:
        (out / "pictures").mkdir(parents=True, exist_ok=True)
        for stem, png in drawn.files.items():
            (out / "pictures" / f"{stem}.png").write_bytes(png)
        (out / "report.html").write_text(page, encoding="utf-8")
    except OSError as cause:
        raise OutputError(f"the report cannot be written to {out}: {cause.strerror}") from cause
    return out / "report.html"


class _Drawn:
    """The light pictures by the stems of their files."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def picture(self, stem: str, alt: str, draw: Callable[[Theme], bytes]) -> Picture:
        """Draw in both themes."""
        self.files[stem] = draw(LIGHT)
        return Picture(stem, alt, _url(self.files[stem]), _url(draw(DARK)))


def _page(found: Assessment, data: FlowMaps, provenance: dict[str, Any], drawn: _Drawn) -> str:
    """The page's text; its pictures go to drawn."""
    misses = _most_wrong(found, data)
    if misses:
        strips = [figures.map_strip(data.maps[i], data.keypoints[i]) for i, _ in misses]
        captions = [f"{m.name}: {m.truth}, answered {m.answer} {m.confidence:.2f}" for _, m in misses]
        drawn.files["most-wrong"] = figures.contact_sheet(strips, captions)
    return _template().render(
        s=found.summary,
        results=result_rows(found.summary),
        leak=LEAK,
        verdict=verdict(found.summary["confidence"]),
        without_maps=without_maps(found.summary),
        database_names={name: _title(name) for name in found.summary["databases"]},
        published=FIGURES,
        comparable=found.summary["maps"] == MAPS and found.summary["groups"] is None,
        **_pictures(found, drawn),
        misses=[m for _, m in misses],
        wrong_in_all=sum(not right for right in _right(found.seeds).any(0)),
        recipe=json.dumps(found.summary["recipe"], indent=2),
        makers=_makers(provenance),
    )


def _pictures(found: Assessment, drawn: _Drawn) -> dict[str, Any]:
    names, counts = list(found.summary["databases"]), _confusions(found)
    matrices = [
        drawn.picture(f"confusion-{name}", f"confusion matrix, {_title(name)}", _confusion(counts[name], _title(name)))
        for name in ("all", *names)
    ]
    people = [
        drawn.picture(f"subjects-{name}", f"hits of each subject, {_title(name)}", _hits(found.seeds, name)) for name in names
    ]
    curve = drawn.picture("reliability", "reliability diagram", lambda theme: figures.reliability(found.calibration, theme))
    return {"matrices": matrices, "people": people, "curve": curve}


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": _share, "percent": lambda value: f"{value:.1%}".replace("%", "\u00a0%")}
    return environment.get_template("page.html.j2")


def _makers(provenance: dict[str, Any]) -> dict[str, list[str]]:
    """A table: each fact -> its value for the report, then for everything that fitted some of the folds."""
    columns = [{"": "this report", **provenance["report"]}]
    columns += [{"": f"{maker['folds']} folds", **maker} for maker in provenance["folds"]]
    names = dict.fromkeys(name for column in reversed(columns) for name in column if name != "folds")
    return {name: [str(column.get(name, "–")) for column in columns] for name in names}


def _title(database: str) -> str:
    return "all" if database == "all" else DATABASES.get(database, database)


def _share(value: float | None) -> str:
    """0.7116 as .7116, as scores are written in the literature."""
    return "–" if value is None else f"{value:.4f}".removeprefix("0")


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _confusions(found: Assessment) -> dict[str, F64]:
    """Counts [K, K] of all and of each database, mean over the seeds."""
    runs = found.summary["seeds"].values()
    return {part: np.mean([run[part]["confusion"] for run in runs], axis=0) for part in next(iter(runs))}


def _confusion(counts: F64, title: str) -> Callable[[Theme], bytes]:
    return lambda theme: figures.confusion(counts, CLASSES, title, theme)


def _right(seeds: Sequence[Answers]) -> Any:
    """Whether each seed [S, N] gave each map the right class."""
    return np.array([answers.logits.argmax(1) == answers.truth for answers in seeds])


def _hits(seeds: Sequence[Answers], database: str) -> Callable[[Theme], bytes]:
    first, right = seeds[0], _right(seeds).mean(0)
    people = [s for s, d in dict.fromkeys(zip(first.subjects, first.databases, strict=True)) if d == database]
    rows = [np.array([own == person for own in first.subjects]) for person in people]
    good, total = np.array([right[r].sum() for r in rows]), np.array([float(r.sum()) for r in rows])
    order = np.lexsort((-total, -good / total))
    labels = [people[i].split("/", 1)[-1] for i in order]
    return lambda theme: figures.hits(labels, good[order], total[order], _title(database), theme)


def _most_wrong(found: Assessment, data: FlowMaps) -> list[tuple[int, Miss]]:
    """(row of data, what went wrong) of the maps whose true class got the least probability, mean over the seeds."""
    first = found.seeds[0]
    chances = np.mean([seed.probabilities for seed in found.calibration.seeds], axis=0)
    given = chances[np.arange(len(first.truth)), first.truth]
    place = {key: row for row, key in enumerate(zip(data.subjects, data.names, strict=True))}
    wrong = [i for i in np.argsort(given, kind="stable") if chances[i].argmax() != first.truth[i]]
    out = []
    for i in wrong[:MOST_WRONG]:
        row = place[first.subjects[i], first.names[i]]
        strip = figures.map_strip(data.maps[row], data.keypoints[row])
        file = io.BytesIO()
        image.imsave(file, strip, format="png")
        facts = (first.names[i], first.subjects[i], CLASSES[first.truth[i]], CLASSES[int(chances[i].argmax())])
        out.append((row, Miss(*facts, float(chances[i].max()), float(given[i]), _url(file.getvalue()))))
    return out
