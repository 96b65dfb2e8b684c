"""Fetch a public set of rows, or a novel to build rows from, check its hash, and say what its licence is worth.

    python -m dataset.download huanhuan
    python -m dataset.download xiyouji                 # 西游记 as text, for dataset.build
    python -m dataset.download huanhuan --source modelscope:kmno4zx/huanhuan-chat --scenes huanhuan_scenes.csv

It writes to `--output` (runs/NAME.json, a novel to runs/NAME.txt) and, beside it, NAME.source.json with where that came
from and its SHA-256. A later download must have the same SHA-256; `--sha256` names another. Where scene ids are known,
from the rows or from `--scenes`, every row gets its `split` and no scene is parted. Nothing of it belongs in a
repository: runs/ is ignored by git.
"""

import csv
import hashlib
import re
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import modelscope

from dataset.novel.prose import read_chapters
from roleplay.disk import read_json, write_json, write_text
from roleplay.errors import DataError, HubError, first_line, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.reading.decoding import read_text
from roleplay.text.rows import file_sha256, load_json, parse_row
from roleplay.text.splits import split_rows

HUGGING_FACE, MODELSCOPE = "hf:", "modelscope:"
PATTERNS = ["*.json", "*.jsonl"]
RECORD = ".source.json"  # beside the file: where it came from, and its SHA-256
LARGEST = 64 << 20  # bytes that a URL may send
TIMEOUT = 30  # seconds without an answer
_FRAMED = re.compile(r"^\*\*\* ?START OF .*\n([\s\S]*?)^\*\*\* ?END OF ", re.MULTILINE)  # as Project Gutenberg does


@dataclass(frozen=True)
class PublicSet:
    """A set, or a novel; the places that hold it (the first that answers is taken), and one sentence on its rights."""

    name: str
    sources: tuple[str, ...]
    licence: str
    is_novel: bool = False


SETS = {
    "huanhuan": PublicSet(
        "huanhuan",
        (
            "https://raw.githubusercontent.com/datawhalechina/self-llm/"
            "84c3486aeee22cd6585c21771924cd538a081295/dataset/huanhuan.json",
            "modelscope:kmno4zx/huanhuan-chat",
        ),
        "the rows are dialogue of a television series whose owners are not known to have licensed it, and a label such "
        "as Apache-2.0 on a copy cannot grant what its uploader does not own: use it privately and do not publish it.",
    ),
    "xiyouji": PublicSet(
        "xiyouji",
        (
            "https://www.gutenberg.org/ebooks/23962.txt.utf-8",
            "https://raw.githubusercontent.com/gutenbergbooks/23962/"
            "1c595c194e46786ec763be3e215136a02527e45a/23962-0.txt",
        ),
        "西游记 (Journey to the West), of the Ming dynasty, is in the public domain; what Project Gutenberg sets "
        "before and after the text, its own terms among it, is left out.",
        is_novel=True,
    ),
}


@dataclass(frozen=True)
class DownloadFlags:
    name: str = flag("", f"which set: {', '.join(SETS)}", place="first")
    source: str = flag(
        "", "another place: a URL, a file, hf:OWNER/NAME or modelscope:OWNER/NAME, then :FILE if it has several"
    )
    sha256: str = flag("", "the SHA-256 that the fetched file must have")
    scenes: str = flag("", "a CSV file with row_sha256_16 (of instruction, newline, output) and scene for each row")
    held_out: float = flag(
        0.1, "the share of rows to hold out, in whole scenes; higher measures better and trains on less"
    )
    seed: int = flag(0, "which scenes are held out")
    output: str = flag("", "the file to write (none: runs/NAME.json, or NAME.txt for a novel)")


def _only_rows(folder: Path, source: str) -> Path:
    """The one JSON file of a fetched repository; raises `HubError` when there is none or a choice."""
    files = sorted(
        path for pattern in PATTERNS for path in folder.rglob(pattern) if not path.name.startswith("dataset_info")
    )
    if len(files) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in files) or "none"
        raise HubError(f"{source} does not hold one JSON file of rows (it has {names}): name it, {source}:FILE")
    return files[0]


def fetch(source: str, folder: Path) -> Path:
    """The local file of a source; what comes from a URL is put into `folder`. Raises `HubError` in one line."""
    try:
        if source.startswith(("http://", "https://")):
            target = folder / (Path(urllib.parse.urlparse(source).path).name or "rows.json")
            with urllib.request.urlopen(source, timeout=TIMEOUT) as answer:
                body = answer.read(LARGEST + 1)
            if len(body) > LARGEST:
                raise HubError(f"{source} is larger than {LARGEST >> 20} MB: it is no set of rows, check the address")
            target.write_bytes(body)
            return target
        if source.startswith((HUGGING_FACE, MODELSCOPE)):
            hub, repository, *file = source.split(":", 2)
            patterns = file or PATTERNS
            if hub + ":" == HUGGING_FACE:
                path = huggingface_hub.snapshot_download(repository, repo_type="dataset", allow_patterns=patterns)
            else:
                path = modelscope.dataset_snapshot_download(repository, allow_patterns=patterns)
            return Path(path, *file) if file else _only_rows(Path(path), source)
    except HubError:
        raise
    except Exception as error:  # the two hubs and urllib raise many kinds, requests' and httpx' among them
        raise HubError(f"{source} cannot be fetched ({first_line(error)})") from error
    if not Path(source).is_file():
        raise HubError(f"{source} is neither a file nor a URL, hf:OWNER/NAME or modelscope:OWNER/NAME")
    return Path(source)


def fetch_first(sources: Sequence[str], folder: Path) -> tuple[str, Path]:
    """The first source that answers and its local file; raises `HubError` with every reason when none does."""
    reasons = []
    for source in sources:
        try:
            return source, fetch(source, folder)
        except HubError as error:
            reasons.append(str(error))
    raise HubError("; ".join(reasons) + ": check the network, or give --source a file or another address")


def check_sha256(found: str, wanted: str, record: Path) -> None:
    """Raises `DataError` unless `found` is `wanted`, or without one what `record` (an earlier download) says."""
    origin = "--sha256"
    if not wanted and record.is_file():
        wanted, origin = read_json(record)["sha256"], str(record)
    if wanted and found != wanted.lower():
        raise DataError(
            f"the file's SHA-256 is {found}, not {wanted} ({origin}): it was changed; pass --sha256 to accept it"
        )


def row_key(row: dict[str, Any]) -> str:
    """What names a row in a table of scenes: 16 hex digits of SHA-256 over instruction, newline, output."""
    return hashlib.sha256(f"{row['instruction']}\n{row['output']}".encode()).hexdigest()[:16]


def add_scenes(values: list[dict[str, Any]], table: Path) -> list[dict[str, Any]]:
    """The rows with `scene` from a CSV file where it names them; raises `DataError` when it is no such table."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            scenes = {line["row_sha256_16"]: line["scene"] for line in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise DataError(f"{table}: no table with the columns row_sha256_16 and scene ({error!r})") from error
    return [value | {"scene": scenes[key]} if (key := row_key(value)) in scenes else value for value in values]


def add_split(values: list[dict[str, Any]], held_out: float, seed: int) -> list[dict[str, Any]]:
    """The rows with `split`: whole scenes, and look-alikes with them, on one side.

    Rows come back as they are when no scene is known, when some already say their split, and when none is wanted.
    """
    if not held_out or any(value.get("split") for value in values) or not any(value.get("scene") for value in values):
        return values
    rows = [parse_row(value, str(number)) for number, value in enumerate(values)]
    held = {row.where for row in split_rows(rows, held_out, seed)[1]}
    return [v | {"split": "held_out" if str(number) in held else "train"} for number, v in enumerate(values)]


def write_novel(file: Path, output: Path, origin: dict[str, Any]) -> None:
    """Write the text of a fetched novel without the frame that Project Gutenberg puts round it; raises `DataError` for
    a file that is no novel in chapters, such as a login page."""
    text, note = read_text(file)
    framed = _FRAMED.search(text)
    chapters = read_chapters(file)
    speeches = sum(len(chapter.utterances) for chapter in chapters)
    if len(chapters) < 2:
        raise DataError(
            f"{origin['source']} is no novel with chapters and speech in quotation marks: check the address"
        )
    write_json(output.with_suffix(RECORD), origin | {"chapters": len(chapters)})
    write_text(output, framed[1] if framed else text)
    told = f"{output}: {len(chapters):,} chapters with {speeches:,} speeches from {origin['source']}"
    print(told, *filter(None, [note]), sep="\n")


def write_rows(file: Path, output: Path, origin: dict[str, Any], settings: DownloadFlags) -> None:
    """Write fetched rows, with their scenes and split where known; raises `DataError` for what is no row."""
    values = load_json(file)
    for number, value in enumerate(values, 1):
        parse_row(value, f"{origin['source']} row {number}")
    if settings.scenes:
        values = add_scenes(values, Path(settings.scenes))
    values = add_split(values, settings.held_out, settings.seed)
    # The record first: no rows lie there without their hash.
    write_json(output.with_suffix(RECORD), origin | {"rows": len(values)})
    write_json(output, values)
    print(f"{output}: {len(values):,} rows from {origin['source']}")
    if any(value.get("split") for value in values):
        held = sum(value.get("split") == "held_out" for value in values)
        known = sum(bool(value.get("scene")) for value in values)
        print(f"split    {len(values) - held:,} rows to train on, {held:,} held out; {known:,} rows have a scene")
    else:
        print("split    none: no scene is known (--scenes), so train.lora holds out whole groups of look-alikes")


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(DownloadFlags, __doc__, argv)
    if settings.name not in SETS:
        raise DataError(f"no public set {settings.name!r}: there are {', '.join(SETS)}")
    if not 0 <= settings.held_out < 1:
        raise DataError(f"--held-out is {settings.held_out}; give a share from 0 to below 1")
    chosen = SETS[settings.name]
    if chosen.is_novel and settings.scenes:
        raise DataError(f"--scenes is for rows, and {chosen.name} is a novel: leave it out")
    output = Path(settings.output or f"runs/{chosen.name}.{'txt' if chosen.is_novel else 'json'}")

    with tempfile.TemporaryDirectory() as folder:
        sources = [settings.source] if settings.source else chosen.sources
        source, file = fetch_first(sources, Path(folder))
        sha256 = file_sha256(file)
        check_sha256(sha256, settings.sha256, output.with_suffix(RECORD))
        origin = {"source": source, "sha256": sha256, "licence": chosen.licence}
        if chosen.is_novel:
            write_novel(file, output, origin)
        else:
            write_rows(file, output, origin, settings)
    print(f"sha256   {sha256}")
    print(f"licence  {chosen.licence}")


if __name__ == "__main__":
    with one_line_errors():
        main()
