"""FFmpeg's input devices: webcams, and pictures that it draws itself (lavfi)."""

from __future__ import annotations

import re
import sys

from engine.errors import SourceError
from stream.sources.address import Address, Options
from stream.sources.ffmpeg import FfmpegSource
from stream.sources.redaction import filter_secrets, has_url, longest_first, redact

_WEBCAM = re.compile(r"\d+|/dev/video\d+")


def is_webcam(source: str) -> bool:
    """Whether a source's text is the number or the device of a webcam."""
    return _WEBCAM.fullmatch(source) is not None


def webcam(source: str, _: Options) -> Address:
    """The address of a webcam by number or device. Raises SourceError for a number on systems without numbered webcams."""
    if not source.isdecimal():
        return Address("webcam", source, source, FfmpegSource, source.rpartition("/")[2], format="v4l2")
    number, name = int(source), f"webcam-{source}"
    if sys.platform == "darwin":
        mac = {"framerate": "30"}
        return Address("webcam", f"webcam {number}", str(number), FfmpegSource, name, format="avfoundation", options=mac)
    if sys.platform.startswith("linux"):
        return Address("webcam", f"/dev/video{number}", f"/dev/video{number}", FfmpegSource, name, format="v4l2")
    raise SourceError(f"webcams cannot be named by number ({number}) on this system; serve the camera by RTSP or HTTP")


def pattern(source: str, _: Options) -> Address:
    """The address of a filter graph, lavfi:GRAPH. Raises SourceError where there is none."""
    graph = source.partition(":")[2]
    if not graph.strip():
        raise SourceError("lavfi: is followed by a graph of FFmpeg's filters, as in lavfi:testsrc=rate=30")
    unescaped = graph.replace("\\", "")  # filters read an address's : only as \:
    read = unescaped if has_url(unescaped) else graph
    secrets = longest_first(filter_secrets(read))
    shown = f"lavfi:{redact(read)}"
    return Address("pattern", shown, graph, FfmpegSource, "pattern", paced=True, format="lavfi", secrets=secrets)
