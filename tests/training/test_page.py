from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from engine.errors import OutputError
from tests.flowmaps import write_dataset
from training.datasets import FlowMaps, htnet_3db
from training.fold_record import FoldResult
from training.page import write_page
from training.published import FIGURES
from training.report import LEAK, Assessment, assess

PROVENANCE = {
    "report": {"commit": "c0ffee", "python": "3.11.x", "numpy": "1.26.x"},
    "folds": [{"folds": 5, "commit": "unknown"}, {"folds": 3, "commit": "facade", "python": "3.12.x", "numpy": "2.0.x"}],
}
RECIPE = {"name": "tiny <&> recipe", "model": {"members": 3}}


class Page(HTMLParser):
    """Tags, attributes and text of a page; open tags must be closed in order."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.alts: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.links += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        self.alts += [value or "" for name, value in attrs if name == "alt"]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    return htnet_3db.load(write_dataset(tmp_path_factory.mktemp("page") / "set"))


def folds(maps: FlowMaps, seed: int) -> list[FoldResult]:
    """Every map answered rightly but the first of each subject, which is thought the next class."""
    out = []
    for subject in dict.fromkeys(maps.subjects):
        rows = [i for i, s in enumerate(maps.subjects) if s == subject]
        logits = np.eye(3)[maps.labels[rows]] * 2 + np.random.default_rng(seed).normal(0, 0.1, (len(rows), 3))
        logits[0, (maps.labels[rows[0]] + 1) % 3] += 3
        facts = (tuple(maps.names[i] for i in rows), tuple(maps.labels[rows].tolist()), tuple(map(tuple, logits.tolist())))
        out.append(FoldResult(subject, seed, *facts, 1.0))
    return out


def found(maps: FlowMaps, seeds: int = 2, groups: int | None = None) -> Assessment:
    results = [fold for seed in range(seeds) for fold in folds(maps, seed)]
    return assess({"recipe": RECIPE, "maps": len(maps), "data": "d1"}, results, maps, groups=groups)


@pytest.fixture(scope="module")
def written(maps: FlowMaps, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert write_page(out, found(maps), maps, PROVENANCE) == out / "report.html"
    return out


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(page: Page) -> None:
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert page.tags["script"] == page.tags["link"] == 0


def test_every_picture_has_a_description(page: Page) -> None:
    assert len(page.alts) == page.tags["img"] and all(page.alts)
    assert "confusion matrix, CASME II" in page.alts and "reliability diagram" in page.alts


def test_the_page_has_scores_confidence_and_provenance(page: Page, maps: FlowMaps) -> None:
    summary = found(maps).summary
    for needed in (
        f"{summary['uf1']['mean']:.4f}".removeprefix("0"),
        f"{summary['confidence']['error']['mean']:.4f}".removeprefix("0"),
        f"{summary['confidence']['perfect']['p95']:.4f}".removeprefix("0"),
        *(
            "committee of 3",
            "leave one subject out",
            "tiny <&> recipe",
            "c0ffee",
            "5 folds",
            "unknown",
            "facade",
            "2.0.x",
            "2 seeds",
            "casme2/sub01",
        ),
    ):
        assert needed in page.text, needed


def test_published_figures_stand_there_with_how_each_chose_its_epoch(page: Page) -> None:
    for figure in FIGURES:
        assert figure.name in page.text and f"{figure.uf1:.4f}".removeprefix("0") in page.text and figure.how in page.text
    leaks = sum(figure.epoch == "test subject" for figure in FIGURES)
    assert page.text.count("not a valid score") == leaks == 3


def test_figures_of_other_data_are_not_set_equal(page: Page) -> None:
    assert "this run was evaluated differently" in page.text and "no comparison ought" not in page.text


def test_the_most_wrong_maps_are_shown_with_their_answers(page: Page, maps: FlowMaps) -> None:
    for name in (f"{subject.split('/')[1]}_c0_0" for subject in dict.fromkeys(maps.subjects)):
        assert f"u, v and strain of {name}" in page.alts
    assert sum(alt.startswith("u, v and strain") for alt in page.alts) == 4
    assert "4 of 24 maps are answered wrongly under every seed" in page.text


def test_pictures_are_also_written_as_files(written: Path) -> None:
    names = {path.stem for path in (written / "pictures").iterdir()}
    expected = {f"{kind}-{name}" for kind in ("confusion", "subjects") for name in ("casme2", "samm", "smic")}
    assert names == expected | {"confusion-all", "reliability", "most-wrong"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (written / "pictures").iterdir())


def test_the_leak_and_single_networks_are_labelled(maps: FlowMaps, tmp_path: Path) -> None:
    base = found(maps)
    leak = {"label": LEAK, **{k: base.summary[k] for k in ("uf1", "uar", "databases")}}
    single = {"runs": 6, **{k: base.summary[k] for k in ("uf1", "uar", "databases")}}
    more = Assessment(base.seeds, base.calibration, {**base.summary, "peeked": leak, "single": single})
    text = Page(write_page(tmp_path, more, maps, PROVENANCE).read_text(encoding="utf-8")).text
    assert LEAK in text and text.index("committee of 3") < text.index(LEAK) and "one network alone (6 runs)" in text


def test_subjects_no_choice_was_made_on_stand_beside_the_others(maps: FlowMaps, tmp_path: Path) -> None:
    base = found(maps)
    half = {"maps": 12, "subjects": 2, **{k: base.summary[k] for k in ("uf1", "uar", "databases")}}
    more = Assessment(base.seeds, base.calibration, {**base.summary, "untouched": half, "development": half})
    text = Page(write_page(tmp_path, more, maps, PROVENANCE).read_text(encoding="utf-8")).text
    assert "its 2 other subjects" in text and "its 2 development subjects" in text
    assert "of the other half, 2 subjects with 12 maps, no comparison ought" in text


def test_groups_carry_a_warning_and_one_seed_no_spread(maps: FlowMaps, tmp_path: Path) -> None:
    text = Page(write_page(tmp_path, found(maps, seeds=1, groups=4), maps, PROVENANCE).read_text(encoding="utf-8")).text
    assert "Judged on 4 groups of subjects, not leave one subject out" in text
    assert "±" not in text and "no spread is known" in text


def test_without_a_wrong_answer_none_is_shown(maps: FlowMaps, tmp_path: Path) -> None:
    logits = tuple(map(tuple, np.eye(3).tolist()))
    results = [replace(fold, logits=tuple(logits[label] for label in fold.truth)) for fold in folds(maps, 0)]
    perfect = assess({"recipe": RECIPE, "maps": len(maps), "data": "d"}, results, maps)
    text = Page(write_page(tmp_path, perfect, maps, PROVENANCE).read_text(encoding="utf-8")).text
    assert "every map is answered rightly" in text


def test_an_unwritable_folder_is_an_error(maps: FlowMaps, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_page(tmp_path / "file", found(maps, seeds=1), maps, PROVENANCE)
