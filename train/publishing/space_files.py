"""What a Space gets of this repository: the files it runs and nothing else, with no link that leads nowhere.

It knows no hub; `upload` sends what is put together here.
"""

import posixpath
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from roleplay.weights.layout import CARD
from train.publishing import upload
from train.publishing.upload import PARTS

REQUIREMENTS = "requirements.txt"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"  # 0.2 GB where those of PyPI bring 3 GB of CUDA
LEFT_OUT = ("assets/screenshots/",)  # the Space is what they show
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[\w./-]+)(?:#[\w-]*)?\)")


def chosen(tracked: Mapping[str, Path], folders: Sequence[Path]) -> dict[str, Path]:
    """Of the `tracked` files those that a Space needs, and every file of the adapter `folders`, by path in the Space.

    Raises `AdapterError` or `HubError` for an adapter folder that must not go out.
    """
    files = {n: p for n, p in tracked.items() if n.split("/")[0] in PARTS and not n.startswith(LEFT_OUT)}
    for folder in folders:
        files |= {f"adapters/{folder.name}/{name}": path for name, path in upload.adapter_files(folder).items()}
    return files


def assemble(files: Mapping[str, Path], target: Path, preload: str = "", hardware: str = "") -> dict[str, Path]:
    """Write the Space to the folder `target`; returns its files.

    Markdown loses its links to what is not there, and the README's front matter has a `preload` repository downloaded
    when the Space is built and not when it starts. A CPU's `hardware` gets PyTorch without CUDA.
    """
    shutil.rmtree(target, ignore_errors=True)
    for name, path in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            text = unlinked(path.read_text(encoding="utf-8"), name, files)
            (target / name).write_text(_preloading(text, preload) if name == CARD else text, encoding="utf-8")
        elif name == REQUIREMENTS and hardware.startswith("cpu"):
            (target / name).write_text(_without_cuda(path.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            shutil.copyfile(path, target / name)
    return {name: target / name for name in files}


def unlinked(text: str, page: str, files: Collection[str]) -> str:
    """Markdown of the file `page` whose links to what is not among `files` are their text, and such images nothing."""

    def kept(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), match["path"]))
        if any(name == path or name.startswith(f"{path}/") for name in files):
            return match[0]
        return "" if match["image"] else match["text"]

    return _LINK.sub(kept, text)


def _preloading(readme: str, base: str) -> str:
    if not base:
        return readme
    _, front, text = readme.split("---\n", 2)
    return f"---\n{front}preload_from_hub:\n  - {base}\n---\n{text}"


def _without_cuda(requirements: str) -> str:
    """The same versions, PyTorch's from its index of builds for CPUs."""
    return f"--extra-index-url {CPU_WHEELS}\n" + re.sub(r"(?m)^(torch==[\w.]+)$", r"\1+cpu", requirements)
