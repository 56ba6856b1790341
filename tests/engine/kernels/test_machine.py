"""What is done with compiled code that cannot be kept on disk, or was spoiled there."""

from __future__ import annotations

from pathlib import Path

import pytest
from numba import types
from numba.core import config

from engine.kernels.machine import FAST, compiled, part


def doubled(numbers):  # type: ignore[no-untyped-def]
    return numbers * 2


@pytest.mark.parametrize("folder", ["a file", "gone/with/no/parent", "good"])
def test_code_that_cannot_be_kept_on_disk_runs_all_the_same(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("no folder")
    place = tmp_path / folder if folder != "gone/with/no/parent" else Path("/proc/no/such/folder")
    monkeypatch.setattr(config, "CACHE_DIR", str(place))
    function = compiled(doubled, types.float32(types.float32), FAST)
    assert function(1.5) == 3
    assert any(tmp_path.rglob("*.nbc")) == (folder == "good")


def test_a_damaged_cache_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    compiled(doubled, types.float32(types.float32), FAST)
    kept = [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]
    assert len(kept) == 2
    whole = {path: path.read_bytes() for path in kept}
    for path in kept:
        for spoiled in (b"", whole[path][: len(whole[path]) // 2], b"\x80no pickle", bytes(reversed(whole[path]))):
            for each, content in whole.items():
                each.write_bytes(content)
            path.write_bytes(spoiled)
            assert compiled(doubled, types.float32(types.float32), FAST)(1.5) == 3, (path.suffix, spoiled[:20])


def test_one_signature_only_so_that_nothing_is_compiled_later() -> None:
    function = compiled(doubled, types.float32(types.float32), FAST)
    with pytest.raises(TypeError):
        function("a word")
    assert len(function.signatures) == 1  # type: ignore[attr-defined]


def test_parts_are_compiled_into_what_calls_them_so_that_code_from_the_disk_gives_the_same_digits() -> None:
    assert part(FAST)(doubled).targetoptions["forceinline"]  # type: ignore[attr-defined]
