"""Send an adapter to the Hugging Face Hub and ModelScope, or this repository to a Space.

    python -m train.push adapters/zhenhuan-gemma3-270m --hub me/zhenhuan --modelscope me/zhenhuan
    python -m train.push --space me/zhenhuan --variables BASE_MODEL=embedded --secrets APP_AUTH

The access tokens are read from HF_TOKEN and MODELSCOPE_API_TOKEN, the Space's secrets from the variables of the same
names. With --dry-run nothing is sent: runs/push/ gets exactly what would go.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import SpaceHardware

from roleplay.environment import ROOT
from roleplay.errors import HubError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.weights.layout import CARD
from train.publishing import upload
from train.publishing.card import write_card


@dataclass(frozen=True)
class PushFlags:
    adapter: str = flag("", "the adapter's folder; none for a Space alone", place="may be first")
    hub: str = flag("", "its repository on the Hugging Face Hub, as user/name")
    modelscope: str = flag("", "its repository on ModelScope, as user/name")
    space: str = flag("", "the Space that gets this repository's tracked files, as user/name")
    variables: list[str] = flag([], "the Space's public variables, each as NAME=VALUE")
    secrets: list[str] = flag([], "names of environment variables that become the Space's secrets")
    hardware: str = flag("", "the Space's hardware, such as cpu-basic, zero-a10g or l4x1; it may cost money")
    private: bool = flag(True, "who may see a new repository: only you, or everyone")
    dry_run: bool = flag(False, "write what would go to runs/push/ and send nothing")


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(PushFlags, __doc__, arguments)
    if not (settings.hub or settings.modelscope or settings.space):
        raise HubError("nowhere to push to: give --hub, --modelscope or --space")
    if settings.hub or settings.modelscope:
        push_adapter(settings)
    if settings.space:
        push_space(settings)


def push_adapter(settings: PushFlags) -> None:
    folder = Path(settings.adapter)
    if not settings.adapter:
        raise HubError("no adapter to push: give its folder first, such as adapters/zhenhuan-gemma3-270m")
    write_card(folder)
    files = upload.adapter_files(folder)
    show(files)
    if settings.dry_run:
        return write_out(files, folder.name)
    for url in upload.push_adapter(folder, settings.hub, settings.modelscope, settings.private):
        print(f"pushed and verified: {url}")


def push_space(settings: PushFlags) -> None:
    variables = dict(entry.split("=", 1) for entry in settings.variables if "=" in entry)
    if len(variables) < len(settings.variables):
        raise HubError(f"--variables {' '.join(settings.variables)}: give each as NAME=VALUE")
    if missing := [name for name in settings.secrets if not os.environ.get(name)]:
        raise HubError(f"secret {missing[0]} has no value: set the environment variable {missing[0]}")
    if settings.hardware and settings.hardware not in list(SpaceHardware):
        raise HubError(f"unknown hardware {settings.hardware!r}: choose one of {', '.join(SpaceHardware)}")
    files = tracked_files()
    base = variables.get("BASE_MODEL", "")
    if upload.is_open(base):
        files[CARD] = preloading(files[CARD], base)
        print(f"preloaded: {base}, when the Space is built")
    show(files)
    print(f"variables: {variables or 'none'}; secrets: {settings.secrets or 'none'}")
    if settings.dry_run:
        upload.check_contents(files)
        return write_out(files, settings.space.replace("/", "--"))
    secrets = {name: os.environ[name] for name in settings.secrets}
    space = upload.Space(settings.space, variables, secrets, settings.hardware, settings.private)
    url = upload.push_space(space, files)
    print(f"pushed and verified: {url}")


def tracked_files() -> dict[str, Path]:
    """What git tracks here, by its path; raises `HubError` outside a clone."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = [name for name in done.stdout.split("\0") if (ROOT / name).is_file()]
    if done.returncode != 0 or not names:
        raise HubError(f"git lists no files in {ROOT}: push a Space from a clone of this repository")
    return {name: ROOT / name for name in names}


def preloading(readme: Path, base: str) -> Path:
    """A copy of the README whose front matter has a Space download `base` when it is built and not when it starts."""
    target = ROOT / "runs" / "push" / CARD
    target.parent.mkdir(parents=True, exist_ok=True)
    _, front, text = readme.read_text(encoding="utf-8").split("---\n", 2)
    target.write_text(f"---\n{front}preload_from_hub:\n  - {base}\n---\n{text}", encoding="utf-8")
    return target


def show(files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        data = path.read_bytes()
        print(f"{hashlib.sha256(data).hexdigest()[:16]} {len(data):>12,}  {name}")


def write_out(files: Mapping[str, Path], name: str) -> None:
    target = ROOT / "runs" / "push" / name
    shutil.rmtree(target, ignore_errors=True)
    for file, path in files.items():
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / file)
    print(f"nothing was sent; what would go is in {target}")


if __name__ == "__main__":
    with one_line_errors():
        main()
