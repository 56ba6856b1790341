"""Whether pictures of an H.264 stream refer to ones that never came, by the numbers that the stream itself gives them.

Each reference picture is one further than that before it (ITU-T H.264, 7.4.3, frame_num); a decoder conceals what is missing
and reports no error. Other codecs are not looked into.
"""

from __future__ import annotations

from collections.abc import Iterator

_SLICE, _IDR, _SPS = 1, 5, 7
_CHROMA_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
"""Profiles whose parameters say how colour is stored."""
_START = b"\0\0\1"
_HEAD = 48
"""Bytes of a slice that its picture's number lies within."""


class References:
    """Follows the packets of one stream in the order of decoding; codec is FFmpeg's name, extradata the codec's own header."""

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._follows = codec == "h264"
        header = extradata or b""
        self._length_bytes = (header[4] & 3) + 1 if len(header) > 6 and header[0] == 1 else 0
        self._bits = 0
        self._planes = self._gaps_allowed = False
        self._before: int | None = None
        if self._follows:
            for unit in _sets(header) if self._length_bytes else _started(header):
                self._take_parameters(unit)

    def broken(self, packet: bytes | memoryview) -> bool:
        """Whether reference pictures are missing between the packet before and this one."""
        if not self._follows:
            return False
        data = bytes(packet)
        for unit in _measured(data, self._length_bytes) if self._length_bytes else _started(data):
            kind = unit[0] & 31 if unit else 0
            if kind == _SPS:
                self._take_parameters(unit)
            elif kind in (_SLICE, _IDR):
                return self._skips(unit)
        return False

    def _take_parameters(self, unit: bytes) -> None:
        if not unit or unit[0] & 31 != _SPS:
            return
        try:
            self._bits, self._planes, self._gaps_allowed = _parameters(_Bits(unit[1:]))
        except IndexError:
            self._bits = 0

    def _skips(self, unit: bytes) -> bool:
        before, reference = self._before, unit[0] >> 5 & 3 > 0
        if unit[0] & 31 == _IDR:
            self._before = 0
            return False
        try:
            number = _number(_Bits(unit[1:_HEAD]), self._bits, planes=self._planes) if self._bits else None
        except IndexError:
            number = None
        if number is None:
            self._before = None
            return False
        most = 1 << self._bits
        self._before = number if reference else (number - 1) % most
        return before is not None and not self._gaps_allowed and number not in (before, (before + 1) % most)


class _Bits:
    """The bits of a unit, without the bytes put in so that none look like its start. Raises IndexError past the end."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """A number of so many bits."""
        if count > self._left:
            raise IndexError("the unit ends before")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """A number of Exp-Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _parameters(bits: _Bits) -> tuple[int, bool, bool]:
    """Of a sequence's parameters: bits of a picture's number, whether colours are coded apart, whether numbers may skip."""
    profile, planes = bits.take(8), False
    bits.take(16)
    bits.golomb()
    if profile in _CHROMA_PROFILES:
        chroma = bits.golomb()
        planes = chroma == 3 and bool(bits.take(1))
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for which in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling(bits, 16 if which < 6 else 64)
    number_bits = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()
    return number_bits, planes, bool(bits.take(1))


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        last = following or last


def _number(bits: _Bits, count: int, *, planes: bool) -> int:
    """frame_num of a slice."""
    for _ in range(3):
        bits.golomb()
    if planes:
        bits.take(2)
    return bits.take(count)


def _started(data: bytes) -> Iterator[bytes]:
    """Units that begin with a start code each."""
    at = data.find(_START)
    while at >= 0:
        after = data.find(_START, at + 3)
        yield data[at + 3 : after if after >= 0 else len(data)]
        at = after


def _measured(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """Units that begin with their length each."""
    at = 0
    while at + length_bytes < len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        yield data[at : at + size]
        at += size


def _sets(header: bytes) -> Iterator[bytes]:
    """The sequence parameters in the header of MP4, Matroska or FLV."""
    at = 6
    for _ in range(header[5] & 31):
        size = int.from_bytes(header[at : at + 2], "big")
        yield header[at + 2 : at + 2 + size]
        at += 2 + size
