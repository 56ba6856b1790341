from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InputError
from stream.annotations.reading import read_annotations
from tests.exports import exported


@pytest.mark.parametrize(
    ("name", "file"), [("eaf", "A.EAF"), ("textgrid", "a.TextGrid"), ("boris", "a.boris"), ("csv", "a.csv")]
)
def test_every_kind_of_file_is_read_by_its_ending(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).write_bytes(exported(name))
    found = read_annotations(tmp_path / file)
    assert [one.label for one in found] == ["surprise", "positive", "negative", "uncertain"]
    assert [one.face for one in found] == [0, 0, 0, 1]


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.docx is of no known kind: \.eaf, \.textgrid"):
        read_annotations(tmp_path / "a.docx")
    for ending in ("eaf", "TextGrid", "boris", "csv"):
        with pytest.raises(InputError, match=rf"a\.{ending} cannot be read: no such file"):
            read_annotations(tmp_path / f"a.{ending}")
        (tmp_path / f"a.{ending}").mkdir()
        with pytest.raises(InputError, match=rf"a\.{ending} cannot be read: is a directory"):
            read_annotations(tmp_path / f"a.{ending}")
    (tmp_path / "b.csv").write_text("x")
    with pytest.raises(InputError, match=r"b\.csv: it has no header"):
        read_annotations(tmp_path / "b.csv")
