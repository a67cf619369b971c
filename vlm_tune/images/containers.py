"""The containers: a JPEG or PNG stripped to its compressed pixels, and how a WebP was made."""

from __future__ import annotations

import re
import struct

__all__ = ["is_lossless_webp", "plain_jpeg", "plain_png"]

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP14, _APP15 = 0xE0, 0xEE, 0xEF
# Inside a scan 0xFF is data when a zero follows, and a restart mark when 0xD0 to 0xD7 follows.
_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})


def plain_jpeg(data: bytes) -> bytes | None:
    """Return a JPEG's first picture without metadata, its compressed pixels untouched.

    The JFIF header stays (without its preview), and so does Adobe's segment, which says how the colours are
    stored. All other application segments, comments and whatever follows the picture are dropped.

    Args:
        data: An encoded JPEG.

    Returns:
        The shorter JPEG, or None where the segments are not as the standard has them.
    """
    if data[:2] != bytes((0xFF, _SOI)):
        return None
    kept = [data[:2]]
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _EOI:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
        if marker == _SOS:
            found = _END_OF_SCAN.search(data, end)
            if found is None:
                return None
            end = found.end() - 2
        kept.append(_kept_segment(marker, data[position:end]))
        position = end
    if data[position : position + 2] != bytes((0xFF, _EOI)):
        return None
    return b"".join([*kept, bytes((0xFF, _EOI))])


def _kept_segment(marker: int, segment: bytes) -> bytes:
    if marker == _APP0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18:
        return b"\xff\xe0\x00\x10" + segment[4:16] + b"\0\0"
    if marker == _APP14 and segment[4:9] == b"Adobe":
        return segment
    return b"" if _APP0 <= marker <= _APP15 or marker == _COM else segment


def plain_png(data: bytes) -> bytes | None:
    """Return a PNG with its header, palette and compressed pixels only.

    Args:
        data: An encoded PNG.

    Returns:
        The shorter PNG; None where it has 16 bits a channel or its chunks are not as the standard has them.
    """
    if data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR" or data[24:25] > b"\x08":
        return None
    kept = [_PNG_SIGNATURE]
    position = 8
    while position + 12 <= len(data):
        end = position + 12 + struct.unpack_from(">I", data, position)[0]
        kind = data[position + 4 : position + 8]
        if kind in _PNG_KEPT:
            kept.append(data[position:end])
        if kind == b"IEND":
            return b"".join(kept)
        position = end
    return None


def is_lossless_webp(data: bytes) -> bool:
    """Return whether a WebP's first frame was compressed without loss."""
    position = 12
    while position + 8 <= len(data):
        kind = data[position : position + 4]
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        size = struct.unpack_from("<I", data, position + 4)[0]
        # An animation's frame holds its pixels as an inner chunk after sixteen bytes about itself.
        position += 24 if kind == b"ANMF" else 8 + size + size % 2
    return False
