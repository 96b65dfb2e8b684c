"""Make the folder of a new character, with a few worked lines in every file.

    python -m dataset.new mara

It writes dataset/mara/, whose README.md says what each file is for; edit them in any order.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roleplay.disk import written_whole
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text import characters

README = "README.md"


@dataclass(frozen=True)
class NewFlags:
    name: str = flag("", "the folder under dataset/ to make, such as mara", place="first")


def make(name: str) -> Path:
    """Write dataset/NAME/ and return it; raises `RoleplayError` for a name that is taken or none, and a full disk."""
    folder = characters.FOLDER / name
    if not characters.NAME.fullmatch(name):
        raise DataError(f"{name!r:.80} is no name for a folder: use letters, digits and dashes")
    if folder.exists():
        raise DataError(f"{folder} exists: choose another name")
    with written_whole(folder) as part:
        for path in sorted((characters.FOLDER / characters.PATTERN).iterdir()):
            shutil.copy(path, part)
        readme = part / README
        readme.write_text(readme.read_text(encoding="utf-8").replace("NAME", name), encoding="utf-8")
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    folder = make(parse(NewFlags, __doc__, arguments).name)
    print(f"wrote {folder}: begin with its {README}")


if __name__ == "__main__":
    with one_line_errors():
        main()
