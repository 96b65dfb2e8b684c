"""Bytes to text: UTF-8, or what the bytes look most like, and then it says so."""

import codecs
import re
from pathlib import Path

from charset_normalizer import from_bytes

from roleplay.errors import DataError

MARKS = {  # the longer of two that begin alike comes first
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
GUESSED = ["gb18030", "big5", "shift_jis", "cp1252", "cp1251", "utf_16_le", "utf_16_be"]
COMMON = "的一是了不我你有在他"  # at least a twentieth of any Chinese text
SIGNS = frozenset("“”‘’—…·、。《》「」（）！，：；？　")  # all that is not ASCII in English written on a Chinese system
BINARY = {  # how a file begins that is no text, and what to do with it
    b"PK\x03\x04": "a zip or Excel file; save it as CSV in UTF-8, or unpack it",
    b"\x1f\x8b": "packed by gzip; unpack it",
    b"\x89PNG": "a picture",
    b"%PDF": "a PDF; save its text as a file of its own",
    b"SQLite format 3": "a database; save the rows as CSV in UTF-8",
}


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file; raises `DataError` in one line."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # a name with a zero byte in it is a ValueError
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error


def decode(data: bytes, where: str | Path) -> tuple[str, str]:
    """The text of `data` and a note on its encoding, "" for plain UTF-8; raises `DataError` for what is no text."""
    for begin, what in BINARY.items():
        if data.startswith(begin):
            raise DataError(f"{where}: this is {what}")
    unmarked = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be" if data[:1] == b"\0" else "utf-8"
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), unmarked)
    try:
        note = f"read as {encoding.upper()}" if encoding.startswith(("utf-16", "utf-32")) else ""
        return data.decode(encoding), note
    except UnicodeDecodeError as error:
        place = f"byte {error.start:,}, line {data[: error.start].count(10) + 1}"
        roughly = data.decode(encoding, "replace")
        damaged = roughly.count("\ufffd")
        if encoding != "utf-8" or damaged <= sum(letter > "\x7f" for letter in roughly) - damaged:
            what = f"damaged {encoding.upper()} ({place})"
            raise DataError(f"{where}: {what}; mend it there, or save the file as UTF-8 again") from error
        if _is_chinese(text := data.decode("gb18030", "replace")):
            if "\ufffd" in text:
                line = text[: text.index("\ufffd")].count("\n") + 1
                raise DataError(
                    f"{where}: damaged GB18030 (line {line}); mend it there, or save it as UTF-8"
                ) from error
            return text, _guessed("GB18030")
        best = from_bytes(data, cp_isolation=GUESSED, threshold=1).best()  # the least bad, however many signs
        if best is None:
            raise DataError(f"{where}: not UTF-8 ({place}), and no other text; save the file as UTF-8") from error
        return str(best), _guessed(best.encoding.upper().replace("_", "-"))


def _is_chinese(text: str) -> bool:
    wide = len(re.findall("[\u4e00-\u9fff]", text))
    common = 20 * sum(map(text.count, COMMON)) >= wide > 20 * text.count("\ufffd")
    return common or all(letter < "\x80" or letter in SIGNS for letter in text)


def _guessed(name: str) -> str:
    return f"not UTF-8; read as {name}, which it looks most like: see that the preview reads well"


def lines_of(text: str) -> list[str]:
    """The lines of a text as an editor counts them: form feeds, U+0085 and U+2028 stand inside a line."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_text(path: str | Path) -> tuple[str, str]:
    """The text of a file and a note on its encoding; raises `DataError` in one line."""
    return decode(read_bytes(path), path)
