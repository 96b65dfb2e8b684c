"""Where a foreign adapter lies, and the few files of it that are read. Only safetensors and JSON are opened."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.disk import read_json
from roleplay.errors import AdapterError
from roleplay.text.rows import file_sha256
from roleplay.weights import hub, scope, sources
from roleplay.weights.layout import CONFIG, MAX_BYTES, TEMPLATE, TRAINING, WEIGHTS

TOKENIZER = "tokenizer_config.json"  # where older versions of transformers keep the chat template
PICKLED = "adapter_model.bin"
READ = {**{name: MAX_BYTES[name] for name in (WEIGHTS, CONFIG, TEMPLATE, TRAINING)}, TOKENIZER: 1 << 22}
MLX = (
    "it is an adapter of mlx-lm, whose matrices lie and scale otherwise: fuse it with mlx_lm.fuse and serve the result "
    "as BASE_MODEL, or train it with peft"
)
CONVERT = (
    "its weights are a pickle (adapter_model.bin), which may hold code and is not opened; where you trust it, convert "
    'it in its folder and take it in again: python -c "import torch; from safetensors.torch import save_file; '
    "t = torch.load('adapter_model.bin', 'cpu', weights_only=True); "
    "save_file({k: w.contiguous() for k, w in t.items()}, 'adapter_model.safetensors')\""
)


@dataclass(frozen=True)
class Origin:
    """A foreign adapter whose files are here; `name` is what it was called, with the revision where it has one."""

    name: str
    folder: Path

    def file(self, name: str) -> Path | None:
        """One of `READ`, None where it is not there."""
        return self.folder / name if (self.folder / name).is_file() else None

    def json(self, name: str) -> dict[str, Any]:
        """The object in a file, {} where there is no file; raises `AdapterError` for anything else."""
        path = self.file(name)
        value = read_json(path, advice="download it again", kind=AdapterError) if path else {}
        if not isinstance(value, dict):
            raise AdapterError(f"{path}: holds a {type(value).__name__} where an object belongs; download it again")
        return value

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file that is read, by name."""
        return {name: file_sha256(path) for name in READ if (path := self.file(name))}


def find(text: str, place: Path) -> Origin:
    """The adapter in a folder of this machine, or of a repository, whose files are fetched into `place`.

    Raises `AdapterError` for what is no adapter of peft's or too large, `HubError` for what cannot be had.
    """
    if os.path.isdir(text):
        folder = Path(text).resolve()
        paths = [path for path in (*folder.glob("*"), *folder.glob("*/*.json")) if path.is_file()]
        check_files(text, {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths})
        return Origin(folder.name, folder)
    source = next(iter(sources.parse(text)), sources.Source(text))
    if not source.repo:
        raise AdapterError(f"no folder {text!r:.120}: give one, or a repository as user/name or modelscope:user/name")
    hub.check_name(source.repo)
    at = scope if source.at_modelscope else hub
    revision, sizes = at.contents(source.repo, source.revision)
    check_files(text, sizes)
    wanted = {name: sizes[name] for name in READ if name in sizes}
    at.download(source.repo, source.revision if source.at_modelscope else revision, wanted, place)
    return Origin(f"{text.partition('@')[0]}@{revision[:12]}", place)


def check_files(name: str, sizes: dict[str, int]) -> None:
    """Raises `AdapterError` unless these files, by their sizes in bytes, are an adapter of peft's."""
    if CONFIG not in sizes or WEIGHTS not in sizes:
        raise AdapterError(f"{name}: {_lacking(sizes)}")
    for file, limit in READ.items():
        if sizes.get(file, 0) > limit:
            raise AdapterError(
                f"{name}: its {file} has {sizes[file] / 1e6:,.0f} MB, the limit is {limit / 1e6:,.0f} MB"
            )


def _lacking(names: Iterable[str]) -> str:
    """What a folder is that lacks the weights or the configuration, and what to do."""
    names = sorted(names)
    if "adapters.safetensors" in names:
        return MLX
    if PICKLED in names:
        return CONVERT
    if inner := [name for name in names if name.endswith(f"/{CONFIG}")]:
        newest = max(inner, key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(12), name))
        return f"it has no adapter itself: give its folder {Path(newest).parent} (of a repository, download it first)"
    if "config.json" in names:
        return "it is a whole model and no adapter: serve it as BASE_MODEL"
    missing = CONFIG if CONFIG not in names else WEIGHTS
    return f"it has no {missing}, so it is no LoRA adapter of peft's: give the folder that holds one"
