from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.features import CANONICAL_KEYPOINTS, SIDE
from training.datasets import flow as flow_module
from training.datasets.clips import Clip, LeftOut
from training.datasets.flow import ClipFlow
from training.datasets.pictures import ClipFolder
from training.datasets.prepared import CLIPS, HEAD, MAPS, SKIPPED, Store, fingerprint, is_prepared, load

WHOLE = ClipFolder(Path("anywhere"), cropped=False, just_expression=False)


def clip(name: str = "a", database: str = "samm", apex: int = 20) -> Clip:
    return Clip(database, f"{database}/006", name, 10, apex, 30, 2, "surprise", "1+2", 200.0, (f"006/{name}",))


def made(seed: int = 0) -> ClipFlow:
    draw = np.random.default_rng(seed)
    return ClipFlow(draw.random((3, SIDE, SIDE), np.float32), CANONICAL_KEYPOINTS, 0.97, True, 1.25, 10, 20, 30)


def write(folder: Path, *names: str, database: str = "samm") -> Path:
    """A finished database of one map a name."""
    store = Store(folder / database)
    flows = [(clip(name, database), made(number)) for number, name in enumerate(names)]
    for each, flow in flows:
        store.put(each, WHOLE, flow)
    store.finish(flows, [LeftOut("006_x", "class", "other"), LeftOut("006_y", "pictures", "there is no folder 006/y")])
    return folder


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    store, flow = Store(tmp_path / "samm"), made()
    store.put(clip(), WHOLE, flow)
    back = Store(tmp_path / "samm").get(clip(), WHOLE)
    assert back is not None and np.array_equal(back.whole, flow.whole) and np.array_equal(back.keypoints, flow.keypoints)
    assert (back.alike, back.one_reference, back.px, back.onset, back.apex, back.offset) == (0.97, True, 1.25, 10, 20, 30)
    assert [path.name for path in (tmp_path / "samm" / MAPS).iterdir()] == ["006_a.npz"]


def test_another_row_or_other_pictures_are_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path / "samm")
    store.put(clip(), WHOLE, made())
    assert store.get(clip(apex=21), WHOLE) is None
    assert store.get(clip(), ClipFolder(Path("elsewhere"), cropped=True, just_expression=False)) is None
    assert store.get(clip(), ClipFolder(Path("elsewhere"), cropped=False, just_expression=False)) is not None


def test_several_databases_in_one_folder_load_together(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    write(tmp_path, "a2", database="casme2")
    both, one = load(tmp_path), load(tmp_path / "samm")
    assert both.names == ("006_a2", "006_a", "006_b") and both.databases == ("casme2", "samm", "samm")
    assert one.names == ("006_a", "006_b") and np.array_equal(one.maps, both.maps[1:])
    assert one.labels.tolist() == [2, 2] and one.absent == ("006_y",)
    assert one.told() == "2 maps of 1 subjects; named but absent: 1 (006_y)"


def test_what_is_no_prepared_database_is_told_apart(tmp_path: Path) -> None:
    assert not is_prepared(tmp_path) and not is_prepared(tmp_path / "gone")
    write(tmp_path, "a")
    assert is_prepared(tmp_path) and is_prepared(tmp_path / "samm")


def test_maps_of_another_version_are_refused_for_reading_and_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a")
    old = fingerprint()
    monkeypatch.setattr(flow_module, "WAY", flow_module.WAY + 1)
    assert fingerprint() != old
    says = rf"prepared by another version .*settings {old}; this one makes .* {fingerprint()}\): prepare it into another"
    with pytest.raises(InputError, match=says):
        load(tmp_path)
    with pytest.raises(InputError, match=says):
        Store(tmp_path / "samm")


def test_the_settings_lie_beside_the_maps(tmp_path: Path) -> None:
    head = json.loads((write(tmp_path, "a") / "samm" / HEAD).read_text())
    assert head["settings"]["onset_reach_s"] == 0.07 and head["settings"]["flow"]["warps"] == 2


def test_an_unfinished_database_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a")
    Store(tmp_path / "samm").begin()
    with pytest.raises(InputError, match=r"preparation of .*samm was not finished; the same `apexstream prepare` goes on"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (HEAD, b"{", "is damaged; delete"),
        (HEAD, b"[]", "is damaged; delete"),
        (CLIPS, b"key,what\n", r"clips\.csv is damaged"),
        (SKIPPED, b"", r"skipped\.csv is damaged"),
        (f"{MAPS}/006_a.npz", b"", r"006_a\.npz is missing or damaged"),
        (f"{MAPS}/006_a.npz", b"PK\x03\x04 no archive", r"006_a\.npz is missing or damaged"),
    ],
)
def test_damage_is_named_with_what_to_do(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (write(tmp_path, "a") / "samm" / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        load(tmp_path)


def test_a_class_nobody_knows_is_told(tmp_path: Path) -> None:
    table = write(tmp_path, "a") / "samm" / CLIPS
    table.write_text(table.read_text().replace(",surprise,surprise,", ",awe,surprise,"))
    with pytest.raises(InputError, match="names a class that is none of negative, positive, surprise"):
        load(tmp_path)


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    (write(tmp_path, "a") / "samm" / MAPS / "006_a.npz").unlink()
    with pytest.raises(InputError, match=r"006_a\.npz is missing or damaged"):
        load(tmp_path)


def test_a_database_without_maps_says_where_the_reasons_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"hold no map; their skipped\.csv says why"):
        load(write(tmp_path))


def test_the_same_name_twice_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path, "a", database="casme2")
    with pytest.raises(InputError, match=r"two databases in .* have a map called 006_a"):
        load(tmp_path)
