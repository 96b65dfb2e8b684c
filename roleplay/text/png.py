"""The texts that a PNG carries beside its picture, read and written. No pixel is decoded, and nothing knows a card."""

import struct
import zlib
from collections.abc import Collection, Iterator, Mapping

from roleplay.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 8 << 20  # bytes of one text, also once it is unpacked
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_GROUND, _SEAL = b"\xfa\xf6\xee", b"\x9e\x2f\x26"  # the page's paper and vermilion


def read_texts(data: bytes, keywords: Collection[str], where: str) -> dict[str, bytes]:
    """The first text under each of these keywords, in any case; raises `DataError` for a PNG that is not whole."""
    texts: dict[str, bytes] = {}
    for kind, body in _chunks(data, where):
        if kind in _TEXTS:
            keyword, _, rest = body.partition(b"\0")
            name = keyword.decode("latin-1").lower()
            if name in keywords and name not in texts:
                texts[name] = _text(kind, rest, where)
    return texts


def write_texts(picture: bytes, texts: Mapping[str, bytes], where: str = "the picture") -> bytes:
    """The PNG with these texts and no others; raises `DataError` for one that is not whole."""
    kept = [_chunk(kind, body) for kind, body in _chunks(picture, where) if kind not in _TEXTS]
    added = [_chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + text) for keyword, text in texts.items()]
    return b"".join([SIGNATURE, *kept[:-1], *added, kept[-1]])


def plain_picture(width: int = 400, height: int = 600) -> bytes:
    """A PNG of a vermilion seal on paper, of the size that cards have."""
    side = width // 5
    paper = b"\0" + _GROUND * width
    edge = _GROUND * ((width - side) // 2)
    sealed = b"\0" + edge + _SEAL * side + edge
    rows = paper * ((height - side) // 2)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits of red, green and blue
    pixels = zlib.compress(rows + sealed * side + rows)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(data: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of every chunk up to the end of the picture."""
    if not data.startswith(SIGNATURE):
        raise DataError(f"{where}: not a PNG; save the picture as PNG")
    start, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[start : start + 8].ljust(8, b"\0"))
        end = start + 8 + length
        if end + 4 > len(data):
            raise DataError(f"{where}: the PNG is cut off at byte {len(data):,}; download it again")
        body = data[start + 8 : end]
        if struct.pack(">I", zlib.crc32(kind + body)) != data[end : end + 4]:
            raise DataError(f"{where}: the PNG is damaged at byte {start:,}; download it again")
        yield kind, body
        start = end + 4


def _text(kind: bytes, rest: bytes, where: str) -> bytes:
    """What follows the keyword: as it is, packed, or after two flags, a language and a translated keyword."""
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]
    elif kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    if packed:
        unpacker = zlib.decompressobj()
        try:
            rest = unpacker.decompress(rest, MAX_TEXT + 1)
        except zlib.error as error:
            raise DataError(f"{where}: a text in the PNG cannot be unpacked ({error}); save the card again") from error
    if len(rest) > MAX_TEXT:
        raise DataError(f"{where}: a text in the PNG has more than {MAX_TEXT >> 20} MB; save the card with less in it")
    return rest
