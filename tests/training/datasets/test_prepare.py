from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError, OutputError
from tests.databases import FILMS, casme2_table, casme3_table, shot, write_casme3, write_picture, write_shot
from tests.faces import grey_picture
from tests.training.test_pool import PoolHere
from training.datasets import load
from training.datasets.clips import find_table
from training.datasets.databases import DATABASES
from training.datasets.prepare import Outcome, prepare

CASME3 = DATABASES["casme3"]
Reports = list[tuple[int, int, str | None]]
Made = tuple[Path, Outcome, Reports]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CAS(ME)^3 that no test changes."""
    return write_casme3(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The source, prepared: the folder, what came of it, and what was reported on the way. No test changes it."""
    reports: Reports = []
    folder = tmp_path_factory.mktemp("made")
    return folder, prepare(CASME3, source, folder, progress=lambda *state: reports.append(state)), reports


@pytest.fixture
def own(source: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(source, tmp_path / "own"))


def skipped(outcome: Outcome) -> dict[str, tuple[str, str]]:
    with (outcome.folder / "skipped.csv").open(newline="") as file:
        return {row["name"]: (row["why"], row["reason"]) for row in csv.DictReader(file)}


def film(root: Path, subject: str, name: str) -> Path:
    return root / "part_A" / subject / name / "color"


def test_pictures_become_flow_maps_that_load(made: Made) -> None:
    folder, outcome, reports = made
    data = load(folder)
    keys = tuple(f"{s}_{f}_{shot(action).apex}" for s, f, action, _ in FILMS)
    assert data.names == keys and data.labels.tolist() == [1, 0, 2] and data.absent == ()
    assert data.subjects == ("casme3/spNO.1", "casme3/spNO.1", "casme3/spNO.2") and set(data.databases) == {"casme3"}
    for number, (_, flow) in enumerate(outcome.made):
        assert np.array_equal(data.maps[number], flow.whole) and np.array_equal(data.keypoints[number], flow.keypoints)
    brows = data.maps[:, 1, 4:8, 4:9].mean((1, 2)) - np.median(data.maps[:, 1], (1, 2))
    assert brows[1] > 0.2 and brows[2] < -0.2 and abs(brows[0]) < 0.1
    assert reports == [(0, 3, None), *((k + 1, 3, key) for k, key in enumerate(keys))]


def test_several_at_once_give_the_same(made: Made, source: Path, tmp_path: Path) -> None:
    prepare(CASME3, source, tmp_path, jobs=2)
    one, two = load(made[0]), load(tmp_path)
    assert one.names == two.names and np.array_equal(one.maps, two.maps) and np.array_equal(one.keypoints, two.keypoints)


def test_another_pool_gives_the_same(made: Made, source: Path, tmp_path: Path) -> None:
    pool = PoolHere()
    prepare(CASME3, source, tmp_path, open_pool=pool.open)
    one, two = load(made[0]), load(tmp_path)
    assert pool.given == [len(made[1].made)]
    assert one.names == two.names and np.array_equal(one.maps, two.maps)
    prepare(CASME3, source, tmp_path, open_pool=pool.open)
    assert len(pool.given) == 1, "nothing is left to be done"


def test_clips_without_usable_pictures_are_listed_and_the_rest_is_made(own: Path, tmp_path: Path) -> None:
    happy, angry, surprised = (shot(action) for _, _, action, _ in FILMS)
    rows = [(s, f, t.onset, t.apex, t.offset, e) for (s, f, _, e), t in zip(FILMS, (happy, angry, surprised), strict=True)]
    more = [("spNO.3", "a", 5, 9, 20, "sad"), ("spNO.3", "b", 5, 9, 20, "Others"), ("spNO.3", "c", 5, 40, 20, "fear")]
    casme3_table(own / CASME3.table, *rows, *more)
    (film(own, "spNO.1", "a") / f"{happy.onset + 1}.jpg").write_bytes(b"damaged")
    for path in film(own, "spNO.1", "b").iterdir():
        write_picture(path, grey_picture(300, 360))
    outcome = prepare(CASME3, own, tmp_path / "maps")
    assert [clip.key for clip, _ in outcome.made] == [f"spNO.2_a_{surprised.apex}"]
    reasons = skipped(outcome)
    assert list(reasons) == ["spNO.3_b_9", "spNO.3_c_40", f"spNO.1_a_{happy.apex}", f"spNO.1_b_{angry.apex}", "spNO.3_a_9"]
    assert [why for why, _ in reasons.values()] == ["class", "table", "pictures", "pictures", "pictures"]
    reasons_given = [reason for _, reason in reasons.values()]
    assert (
        reasons_given[0] == "others belongs to none of the three classes"
        and reasons_given[1] == "the apex 40 lies outside the clip, 5 to 20"
    )
    assert (
        "is no picture" in reasons_given[2]
        and "no face was found at the onset" in reasons_given[3]
        and "no folder spNO.3/a/color" in reasons_given[4]
    )
    assert load(tmp_path / "maps").absent == tuple(reasons)[2:]


def test_a_folder_that_goes_away_meanwhile_is_skipped(own: Path, tmp_path: Path) -> None:
    def lost(done: int, total: int, newest: str | None) -> None:
        if newest is None:
            shutil.rmtree(film(own, "spNO.1", "a"))

    outcome = prepare(CASME3, own, tmp_path / "maps", progress=lost)
    assert [clip.key for clip, _ in outcome.made] == [f"{s}_{f}_{shot(action).apex}" for s, f, action, _ in FILMS[1:]]
    (reason,) = (each.reason for each in outcome.left_out)
    assert "spNO.1/a/color cannot be read: No such file" in reason


def test_a_second_run_makes_only_what_is_missing_or_has_another_row(made: Made, own: Path, tmp_path: Path) -> None:
    maps = Path(shutil.copytree(made[0], tmp_path / "maps"))
    parts = sorted((maps / "casme3" / "maps").iterdir())
    parts[0].unlink()
    parts[1].write_bytes(b"damaged")
    rows = [(s, f, shot(a).onset, shot(a).apex, shot(a).offset, e) for s, f, a, e in FILMS]
    rows[2] = (*rows[2][:2], rows[2][2] + 1, *rows[2][3:])
    casme3_table(own / CASME3.table, *rows[1:], ("spNO.1", "a", *rows[0][2:]))
    reports: Reports = []
    prepare(CASME3, own, tmp_path / "maps", progress=lambda *state: reports.append(state))
    assert reports[0] == (0, 3, None) and len(reports) == 4
    reports.clear()
    prepare(CASME3, own, tmp_path / "maps", progress=lambda *state: reports.append(state))
    assert reports == [(3, 3, None)] and len(load(tmp_path / "maps")) == 3


KILLED = """
import sys
from pathlib import Path
from training.datasets.databases import DATABASES
from training.datasets.prepare import prepare

def report(done, total, newest):
    print(done, flush=True)
    if done == 1:
        sys.stdin.read()

prepare(DATABASES["casme3"], Path(sys.argv[1]), Path(sys.argv[2]), progress=report)
"""


def test_a_killed_run_is_gone_on_with(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "maps")]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert [run.stdout.readline(), run.stdout.readline()] == ["0\n", "1\n"]
        run.kill()
    with pytest.raises(InputError, match="was not finished; the same `apexstream prepare` continues it"):
        load(tmp_path / "maps")
    (done,) = (tmp_path / "maps" / "casme3" / "maps").iterdir()
    before = done.stat().st_mtime_ns
    reports: Reports = []
    prepare(CASME3, source, tmp_path / "maps", progress=lambda *state: reports.append(state))
    assert reports[0] == (1, 3, None) and done.stat().st_mtime_ns == before and len(load(tmp_path / "maps")) == 3


def test_a_root_without_any_of_the_clips_is_an_error_with_an_example(source: Path, tmp_path: Path) -> None:
    table = casme2_table(tmp_path / "table.xlsx", ("01", "EP02_01f", 46, 59, 86, "happiness"))
    with pytest.raises(InputError, match=r"none of the 1 clips is below .*; CASME II is sub01/EP02_01f/img46\.jpg"):
        prepare(DATABASES["casme2"], source, tmp_path / "maps", annotations=table)
    assert not (tmp_path / "maps").exists()


def test_the_table_is_found_in_or_near_the_root(tmp_path: Path) -> None:
    root = tmp_path / "set" / "part_A"
    root.mkdir(parents=True)
    with pytest.raises(InputError, match=r"label_JpgIndex_v2\.xlsx is not in or near .*; name it with --annotations"):
        find_table(CASME3, root)
    for place in (
        "set/CAS(ME)3_part_A_ME_label_JpgIndex_v2.xlsx",
        "set/part_A/tables/cas(me)3_part_A_ME_label_jpgindex_v2.xlsx",
    ):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert find_table(CASME3, root).resolve() == path
        path.unlink()


def test_a_folder_that_cannot_be_written_is_an_error(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        prepare(CASME3, source, tmp_path / "file")


def test_raw_casme2_as_released(tmp_path: Path) -> None:
    taken = shot("smile", 200.0)
    write_shot(tmp_path / "CASME2-RAW" / "sub01" / "EP02_01f", taken, "img{}.jpg")
    row = ("01", "EP02_01f", taken.onset, taken.apex, taken.offset, "happiness")
    casme2_table(tmp_path / "CASME2-coding-20140508.xlsx", row)
    prepare(DATABASES["casme2"], tmp_path / "CASME2-RAW", tmp_path / "maps")
    data = load(tmp_path / "maps")
    assert data.names == ("sub01_EP02_01f",) and data.subjects == ("casme2/sub01",) and data.labels.tolist() == [1]
    lips = data.keypoints[0, 3:].round().astype(int)
    assert all(data.maps[0, 1, y, x] < np.median(data.maps[0, 1]) - 0.5 for x, y in lips)
