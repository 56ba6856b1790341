from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.geometry import CANONICAL_KEYPOINTS, MAP_SIDE
from engine.types import F32
from training.datasets import flow as flow_module
from training.datasets.clips import Clip, LeftOut
from training.datasets.flow import ClipFlow, clip_pictures
from training.datasets.pictures import ClipFolder
from training.datasets.prepared import CLIPS, HEAD, MAPS, SKIPPED, Store, fingerprint, is_prepared, load

WHOLE = ClipFolder(Path("anywhere"), cropped=False, just_expression=False)


def clip(name: str = "a", database: str = "samm", apex: int = 20) -> Clip:
    return Clip(database, f"{database}/006", name, 10, apex, 30, 2, "surprise", "1+2", 200.0, (f"006/{name}",))


def made(seed: int = 0, stamp: str = "pictures") -> ClipFlow:
    draw = np.random.default_rng(seed)
    return ClipFlow(draw.random((3, MAP_SIDE, MAP_SIDE), np.float32), CANONICAL_KEYPOINTS, 0.97, True, 1.25, 10, 20, 30, stamp)


def pictured(folder: Path) -> tuple[ClipFolder, ClipFlow]:
    """A folder with the pictures of `clip` and of its neighbour, and a flow that was made from them."""
    folder.mkdir()
    for number in (10, 20, 21):
        (folder / f"{number}.jpg").write_bytes(b"x")
    source = ClipFolder(folder, cropped=False, just_expression=False)
    return source, made(stamp=clip_pictures(clip(), source).stamp())


def write(folder: Path, *names: str, database: str = "samm") -> Path:
    """A finished database of one map a name."""
    store = Store(folder / database)
    flows = [(clip(name, database), made(number)) for number, name in enumerate(names)]
    for each, flow in flows:
        store.put(each, WHOLE, flow)
    store.finish(flows, [LeftOut("006_x", "class", "other"), LeftOut("006_y", "pictures", "there is no folder 006/y")])
    return folder


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    source, flow = pictured(tmp_path / "a")
    Store(tmp_path / "samm").put(clip(), source, flow)
    back = Store(tmp_path / "samm").get(clip(), source)
    assert back is not None and np.array_equal(back.whole, flow.whole) and np.array_equal(back.keypoints, flow.keypoints)
    assert (back.alike, back.one_reference, back.px, back.onset, back.apex, back.offset) == (0.97, True, 1.25, 10, 20, 30)
    assert [path.name for path in (tmp_path / "samm" / MAPS).iterdir()] == ["006_a.npz"]


def test_another_row_or_another_kind_of_pictures_is_made_again(tmp_path: Path) -> None:
    store, (source, flow) = Store(tmp_path / "samm"), pictured(tmp_path / "a")
    store.put(clip(), source, flow)
    assert store.get(clip(apex=21), source) is None
    assert store.get(clip(), replace(source, cropped=True)) is None
    moved = replace(source, path=source.path.rename(tmp_path / "elsewhere"))
    assert store.get(clip(), source) is None and store.get(clip(), moved) is not None


def test_other_pictures_under_the_same_names_are_made_again(tmp_path: Path) -> None:
    store, (source, flow) = Store(tmp_path / "samm"), pictured(tmp_path / "a")
    store.put(clip(), source, flow)
    (source.path / "20.jpg").write_bytes(b"another")
    assert store.get(clip(), source) is None


def test_maps_by_other_versions_of_the_libraries_are_made_again_but_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, flow = pictured(tmp_path / "a")
    store = Store(tmp_path / "samm")
    store.put(clip(), source, flow)
    store.finish([(clip(), flow)], [])
    versions_written = json.loads((tmp_path / "samm" / HEAD).read_text())["versions"]
    assert versions_written["numpy"] == np.__version__ and set(versions_written) == {
        "ai-edge-litert",
        "dlib-bin",
        "opencv-contrib-python",
        "numpy",
        "numba",
    }
    monkeypatch.setattr(flow_module, "LIBRARIES", ("numpy", "no-such-package"))
    assert len(load(tmp_path)) == 1
    assert Store(tmp_path / "samm").get(clip(), source) is None
    assert json.loads((tmp_path / "samm" / HEAD).read_text())["versions"] == {
        "numpy": np.__version__,
        "no-such-package": "absent",
    }
    with pytest.raises(InputError, match="was not finished"):  # its head names other versions than its maps were made with
        load(tmp_path)


def test_several_databases_in_one_folder_load_together(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    write(tmp_path, "a2", database="casme2")
    both, one = load(tmp_path), load(tmp_path / "samm")
    assert both.names == ("006_a2", "006_a", "006_b") and both.databases == ("casme2", "samm", "samm")
    assert one.names == ("006_a", "006_b") and np.array_equal(one.maps, both.maps[1:])
    assert one.labels.tolist() == [2, 2] and one.absent == ("006_y",)
    assert one.description() == "2 maps of 1 subjects; named but absent: 1 (006_y)"


def test_what_is_no_prepared_database_is_recognized(tmp_path: Path) -> None:
    assert not is_prepared(tmp_path) and not is_prepared(tmp_path / "gone")
    write(tmp_path, "a")
    assert is_prepared(tmp_path) and is_prepared(tmp_path / "samm")


def test_maps_of_another_version_are_refused_for_reading_and_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a")
    old = fingerprint()
    with monkeypatch.context() as other:
        other.setattr(flow_module, "DECIDING_FOLDERS", flow_module.DECIDING_FOLDERS[1:])
        assert fingerprint() != old
    monkeypatch.setattr(flow_module, "APEX_REACH_S", 0.05)
    assert fingerprint() != old
    message = rf"prepared by another version .*settings {old}; this one makes .* {fingerprint()}\): prepare it into another"
    with pytest.raises(InputError, match=message):
        load(tmp_path)
    with pytest.raises(InputError, match=message):
        Store(tmp_path / "samm")


def test_the_settings_are_stored_with_the_maps(tmp_path: Path) -> None:
    head = json.loads((write(tmp_path, "a") / "samm" / HEAD).read_text())
    assert head["settings"]["onset_reach_s"] == 0.07 and head["settings"]["flow"]["warps"] == 2


def test_an_unfinished_database_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a")
    Store(tmp_path / "samm").mark_unfinished()
    with pytest.raises(InputError, match=r"preparation of .*samm was not finished; the same `apexstream prepare` continues it"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (HEAD, b"{", "is damaged; delete"),
        (HEAD, b"[]", "is damaged; delete"),
        (CLIPS, b"key,what\n", r"clips\.csv is damaged"),
        (SKIPPED, b"", r"skipped\.csv is damaged"),
        (f"{MAPS}/006_a.npz", b"", r"006_a\.npz is missing or damaged"),
        (f"{MAPS}/006_a.npz", b"PK\x03\x04 no archive", r"006_a\.npz is missing or damaged"),
    ],
)
def test_damage_is_an_error_with_advice(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (write(tmp_path, "a") / "samm" / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("fact", range(6))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_facts_that_are_no_numbers_are_damage(fact: int, value: float, tmp_path: Path) -> None:
    part = write(tmp_path, "a") / "samm" / MAPS / "006_a.npz"
    rewrite(part, facts=lambda facts: np.where(np.arange(6) == fact, value, facts))
    with pytest.raises(InputError, match=r"006_a\.npz is missing or damaged; the same `apexstream prepare` makes it again"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("whole", lambda whole: whole[:, 1:]),
        ("whole", lambda whole: whole * np.float32(np.nan)),
        ("whole", lambda whole: whole.astype(str)),
        ("keypoints", lambda points: points[1:]),
        ("keypoints", lambda points: points * np.float32(np.inf)),
        ("facts", lambda facts: facts[1:]),
        ("facts", lambda facts: facts.astype(str)),
    ],
)
def test_arrays_of_another_form_are_damage(name: str, change: Callable[[F32], F32], tmp_path: Path) -> None:
    rewrite(write(tmp_path, "a") / "samm" / MAPS / "006_a.npz", **{name: change})
    with pytest.raises(InputError, match=r"006_a\.npz is missing or damaged; the same `apexstream prepare` makes it again"):
        load(tmp_path)


def rewrite(part: Path, **changes: Callable[[F32], F32]) -> None:
    with np.load(part) as held:
        arrays = dict(held)
    np.savez(part, **{name: changes[name](array) if name in changes else array for name, array in arrays.items()})


def test_any_damaged_byte_is_an_error_or_harmless(tmp_path: Path) -> None:
    part = write(tmp_path, "a") / "samm" / MAPS / "006_a.npz"
    whole, before = part.read_bytes(), load(tmp_path)
    draw = np.random.default_rng(5)
    for place in draw.choice([*range(400), *range(len(whole) - 1400, len(whole))], 100):  # what is about the arrays
        damaged = bytearray(whole)
        damaged[place] ^= int(draw.integers(1, 256))
        part.write_bytes(damaged)
        try:
            after = load(tmp_path)
        except InputError:
            continue
        assert np.array_equal(after.maps, before.maps) and np.array_equal(after.keypoints, before.keypoints)


def test_an_unknown_class_is_an_error(tmp_path: Path) -> None:
    table = write(tmp_path, "a") / "samm" / CLIPS
    table.write_text(table.read_text().replace(",surprise,surprise,", ",awe,surprise,"))
    with pytest.raises(InputError, match="names a class that is none of negative, positive, surprise"):
        load(tmp_path)


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    (write(tmp_path, "a") / "samm" / MAPS / "006_a.npz").unlink()
    with pytest.raises(InputError, match=r"006_a\.npz is missing or damaged"):
        load(tmp_path)


def test_a_database_without_maps_is_an_error_that_names_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"hold no map; their skipped\.csv lists the reasons"):
        load(write(tmp_path))


def test_the_same_name_twice_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path, "a", database="casme2")
    with pytest.raises(InputError, match=r"two databases in .* have a map called 006_a"):
        load(tmp_path)


def test_one_subject_under_two_spellings_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a", database="casme2")
    write(tmp_path, "b", database="casme02")
    with pytest.raises(InputError, match="one subject in two ways, 'casme02/006' and 'casme2/006'"):
        load(tmp_path)
