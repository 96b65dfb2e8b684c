"""What a Space gets of this repository: the files it runs and nothing else, with no link that leads nowhere.

It knows no hub; `upload` sends what is put together here.
"""

import json
import posixpath
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roleplay.errors import HubError
from roleplay.weights.layout import CARD
from train.publishing import upload
from train.publishing.upload import PARTS

REQUIREMENTS = "requirements.txt"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"  # 0.2 GB where those of PyPI bring 3 GB of CUDA
LEFT_OUT = (
    *("assets/screenshots/", "train/character.ipynb"),  # the Space is what they show
    # 19 MB: a training at the start learns rows.json, and the default adapter carries what it looks up.
    *("dataset/zhenhuan/intents.json", "dataset/zhenhuan/conversations.json"),
)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[\w./-]+)(?:#[\w-]*)?\)")


def chosen(tracked: Mapping[str, Path], folders: Sequence[Path]) -> dict[str, Path]:
    """Of the `tracked` files those that a Space needs, and every file of the adapter `folders`, by path in the Space.

    Raises `AdapterError` or `HubError` for an adapter folder that must not go out.
    """
    files = {n: p for n, p in tracked.items() if n.split("/")[0] in PARTS and not n.startswith(LEFT_OUT)}
    for folder in folders:
        if any(name.startswith(f"adapters/{folder.name}/") for name in files):
            raise HubError(f"two adapters are called {folder.name}, and a Space has one folder of a name: rename one")
        files |= {f"adapters/{folder.name}/{name}": path for name, path in upload.adapter_files(folder).items()}
    return files


@dataclass(frozen=True)
class About:
    """What a Space's files are made for: a character's `name`, "" for the one that this repository comes with, a base
    model's repository to `preload` when the Space is built, and its `hardware`."""

    name: str = ""
    preload: str = ""
    hardware: str = ""


def assemble(files: Mapping[str, Path], target: Path, about: About) -> dict[str, Path]:
    """Write the Space to the folder `target`; returns its files.

    Markdown loses its links to what is not there. The README's front matter speaks of the character, and has a
    repository downloaded when the Space is built and not when it starts. A CPU's hardware gets PyTorch without CUDA.
    """
    shutil.rmtree(target, ignore_errors=True)
    for file, path in files.items():
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            text = unlinked(path.read_text(encoding="utf-8"), file, files)
            text = _speaking_of(about.name, about.preload, text) if file == CARD else text
            (target / file).write_text(text, encoding="utf-8")
        elif file == REQUIREMENTS and about.hardware.startswith("cpu"):
            (target / file).write_text(_without_cuda(path.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            shutil.copyfile(path, target / file)
    return {file: target / file for file in files}


def unlinked(text: str, page: str, files: Collection[str]) -> str:
    """Markdown of the file `page` whose links to what is not among `files` are their text, and such images nothing."""

    def kept(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), match["path"]))
        if any(name == path or name.startswith(f"{path}/") for name in files):
            return match[0]
        return "" if match["image"] else match["text"]

    return _LINK.sub(kept, text)


def _speaking_of(name: str, preload: str, readme: str) -> str:
    """The README with a front matter that is about the character `name`; "" leaves it as it is."""
    _, front, text = readme.split("---\n", 2)
    told = {
        "title": f"{name} beside the base model",
        "emoji": "🎭",
        "short_description": f"Gemma as {name:.32}, tuned and untuned",  # the Hub takes 60 characters
    }
    lines = []
    for line in front.splitlines():
        key = line.split(":")[0]
        lines.append(f"{key}: {json.dumps(told[key], ensure_ascii=False)}" if name and key in told else line)
    preloaded = f"preload_from_hub:\n  - {preload}\n" if preload else ""
    return "\n".join(["---", *lines, preloaded]) + f"---\n{text}"


def _without_cuda(requirements: str) -> str:
    """The same versions, PyTorch's from its index of builds for CPUs."""
    return f"--extra-index-url {CPU_WHEELS}\n" + re.sub(r"(?m)^(torch==[\w.]+)$", r"\1+cpu", requirements)
