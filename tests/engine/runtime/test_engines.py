from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from engine.errors import OutputError
from engine.runtime import engines
from engine.runtime.engines import EngineKey

KEY = EngineKey("11.4.0", "sm_90", "Linux x86_64", "0" * 64, "[1..64, 3, 28, 28]", "float16, no TF32")
ENGINE = b"\x00compiled\nnetwork\xff" * 100


def test_what_is_written_is_read_under_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "net.engine"
    engines.write(path, KEY, ENGINE)
    assert engines.read(path, KEY) == (ENGINE, None)
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_is_no_error(tmp_path: Path) -> None:
    assert engines.read(tmp_path / "none", KEY) == (None, None)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"tensorrt": "11.3.0"}, "was built by TensorRT 11.3.0, and this is 11.4.0"),
        ({"gpu": "sm_80"}, "was built for a GPU of sm_80, and this one is sm_90"),
        ({"system": "Windows AMD64"}, "was built on Windows AMD64, and this is "),
        ({"onnx": "1" * 64}, "was built from another network file"),
        ({"shapes": "[1..8, 3, 28, 28]"}, "was built for maps [1..8, 3, 28, 28], not [1..64, 3, 28, 28]"),
        ({"flags": "float32, no TF32"}, "was built with float32, no TF32, not float16, no TF32"),
    ],
)
def test_an_engine_built_elsewhere_is_refused_with_the_difference(tmp_path: Path, other: dict[str, str], says: str) -> None:
    engines.write(tmp_path / "e", replace(KEY, **other), ENGINE)
    engine, reason = engines.read(tmp_path / "e", KEY)
    assert engine is None and reason is not None and reason.startswith(f"{tmp_path / 'e'} {says}")


def test_every_part_of_the_key_has_its_sentence() -> None:
    assert set(engines.WORDS) == {field.name for field in fields(EngineKey)}


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_file_cut_short_is_damaged(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "e"
    engines.write(path, KEY, ENGINE)
    path.write_bytes(path.read_bytes()[:cut])
    engine, reason = engines.read(path, KEY)
    assert engine is None and reason in (f"{path} is damaged", f"{path} is no engine of apexstream")


def test_one_bit_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "e"
    engines.write(path, KEY, ENGINE)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert engines.read(path, KEY) == (None, f"{path} is damaged")


@pytest.mark.parametrize(
    "content", [b"[]\nx", b"{}\nx", b'{"format": "apexstream engine 1"}\nx', b"\xff\xfe\n", b"null\n", b"[" * 200_000]
)
def test_a_foreign_file_is_no_engine(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e").write_bytes(content)
    assert engines.read(tmp_path / "e", KEY) == (None, f"{tmp_path / 'e'} is no engine of apexstream")


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    engines.write(tmp_path / "e", KEY, ENGINE)
    assert (tmp_path / "e").stat().st_mode == plain.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "plain"]


def test_a_folder_in_its_place_is_reported(tmp_path: Path) -> None:
    engine, reason = engines.read(tmp_path, KEY)
    assert engine is None and reason is not None and "cannot be read" in reason


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "e"
    engines.write(path, KEY, ENGINE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        engines.write(path, KEY, b"other")
    assert engines.read(path, KEY) == (ENGINE, None) and list(tmp_path.iterdir()) == [path]
