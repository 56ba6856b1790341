"""Lost reference pictures of an H.264 stream, found as gaps in frame_num (ITU-T H.264, 7.4.3).

frame_num increases by one from reference picture to reference picture; a decoder conceals missing ones and reports no error.
Other codecs are not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

_SLICE, _IDR, _SPS = 1, 5, 7
_CHROMA_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
"""profile_idc of those whose sequence parameter set has chroma_format_idc."""
_START = b"\0\0\1"
_HEAD = 48
"""Bytes at the start of a slice that include frame_num."""


class FrameNumGaps:
    """Checks the packets of one stream in the order of decoding; codec is FFmpeg's name, extradata the codec's own header: in
    MP4, Matroska and FLV its parameter sets each behind their length (avcC)."""

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._is_h264 = codec == "h264"
        header = extradata or b""
        self._length_bytes = (header[4] & 3) + 1 if len(header) > 6 and header[0] == 1 else 0
        self._bits = 0
        self._separate_planes = self._gaps_allowed = False
        self._last: int | None = None
        if self._is_h264:
            for unit in islice(_length_prefixed(header[6:], 2), header[5] & 31) if self._length_bytes else _start_coded(header):
                self._read_parameters(unit)

    def missing_before(self, packet: bytes) -> bool:
        """Whether reference pictures are missing between the previous packet and this one."""
        if not self._is_h264:
            return False
        for unit in _length_prefixed(packet, self._length_bytes) if self._length_bytes else _start_coded(packet):
            kind = unit[0] & 31 if unit else 0
            if kind == _SPS:
                self._read_parameters(unit)
            elif kind in (_SLICE, _IDR):
                return self._has_gap(unit)
        return False

    def _read_parameters(self, unit: bytes) -> None:
        if not unit or unit[0] & 31 != _SPS:
            return
        try:
            self._bits, self._separate_planes, self._gaps_allowed = _parameters(_Bits(unit[1:]))
        except IndexError:
            self._bits = 0

    def _has_gap(self, unit: bytes) -> bool:
        last, reference = self._last, unit[0] >> 5 & 3 > 0
        if unit[0] & 31 == _IDR:
            self._last = 0
            return False
        try:
            number = _frame_num(_Bits(unit[1:_HEAD]), self._bits, separate_planes=self._separate_planes) if self._bits else None
        except IndexError:
            number = None
        if number is None:
            self._last = None
            return False
        modulus = 1 << self._bits
        self._last = number if reference else (number - 1) % modulus
        return last is not None and not self._gaps_allowed and number not in (last, (last + 1) % modulus)


class _Bits:
    """The bits of a NAL unit without its emulation prevention bytes. Raises IndexError past the end."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """An unsigned integer of count bits, u(n)."""
        if count > self._left:
            raise IndexError("the unit is too short")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code, ue(v)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _parameters(bits: _Bits) -> tuple[int, bool, bool]:
    """Of a sequence parameter set: bits of frame_num, separate_colour_plane_flag, gaps_in_frame_num_value_allowed_flag."""
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


def _frame_num(bits: _Bits, count: int, *, separate_planes: bool) -> int:
    """frame_num of a slice header."""
    for _ in range(3):
        bits.golomb()
    if separate_planes:
        bits.take(2)
    return bits.take(count)


def _start_coded(data: bytes) -> Iterator[bytes]:
    """The NAL units of a byte stream, each behind a start code (Annex B)."""
    at = data.find(_START)
    while at >= 0:
        after = data.find(_START, at + 3)
        yield data[at + 3 : after if after >= 0 else len(data)]
        at = after


def _length_prefixed(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """The NAL units of a packet, each behind its length."""
    at = 0
    while at + length_bytes < len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        yield data[at : at + size]
        at += size
