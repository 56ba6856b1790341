from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import av

from apexstream.bench.camera import Cameras, parts_of
from stream.sources.file import open_video


def test_a_stream_holds_every_picture_of_the_clip(rendered_clip: Path, tmp_path: Path) -> None:
    parts = parts_of(rendered_clip)
    with open_video(rendered_clip) as video:
        count = sum(1 for _ in video)
    copy = tmp_path / "copy.ts"
    copy.write_bytes(b"".join(data for _, data in parts))
    with av.open(str(copy)) as stream:
        assert sum(1 for _ in stream.decode(video=0)) == count
    assert parts[0][0] == 0 and all(a[0] <= b[0] for a, b in pairwise(parts))


def test_pictures_come_in_real_time_and_to_each_camera_its_own(rendered_clip: Path) -> None:
    parts = parts_of(rendered_clip)
    half = next(k for k, (due, _) in enumerate(parts) if due >= 0.5)
    size = sum(len(data) for _, data in parts[: half + 1])
    with Cameras(rendered_clip, 2) as cameras:
        assert len(set(cameras.urls)) == 2
        for url in cameras.urls:
            began = time.monotonic()
            with urlopen(url, timeout=30) as stream:
                assert len(stream.read(size)) == size
            assert time.monotonic() - began >= 0.45
