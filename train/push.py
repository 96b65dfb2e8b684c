"""Send an adapter to the Hugging Face Hub and ModelScope, and this page with it to a Space.

    python -m train.push adapters/zhenhuan-gemma3-270m --hub me/zhenhuan --modelscope me/zhenhuan
    python -m train.push adapters/zhenhuan-alone-gemma3-270m --gguf me/zhenhuan-gguf
    python -m train.push adapters/mine --hub me/mine --space me/room --secrets HF_TOKEN
    python -m train.push --space me/room --adapter adapters/mine --variables BASE_MODEL=embedded --secrets APP_AUTH

A Space gets what it runs and the adapter folders that are named, or else the default one. The access tokens are read
from HF_TOKEN and MODELSCOPE_API_TOKEN, the Space's secrets from the variables of the same names. With --dry-run nothing
is sent: runs/push/ gets exactly what would go.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, SpaceHardware

from roleplay.disk import read_json
from roleplay.environment import ROOT
from roleplay.errors import AdapterError, HubError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.weights import embedded, inspection, sources
from roleplay.weights.hub import check_name, sentences
from roleplay.weights.layout import CARD, NOTICE, TRAINING, WEIGHTS
from train.publishing import gguf, ollama, space_files, upload
from train.publishing.card import gguf_card, write_card

DEFAULT = "zhenhuan-gemma3-270m"  # goes with a Space where no other adapter is given


@dataclass(frozen=True)
class PushFlags:
    adapter: list[str] = flag([], "the adapter's folder; a Space takes several", place="may be first")
    hub: str = flag("", "its repository on the Hugging Face Hub, as user/name")
    gguf: str = flag("", "the repository for what train.export merged, for Ollama and llama.cpp, as user/name")
    modelscope: str = flag("", "its repository on ModelScope, as user/name")
    space: str = flag("", "the Space that gets this page and the adapters, as user/name")
    adapter_repo: str = flag(
        "", "what the Space fetches at its start, as ADAPTER takes it: user/name, user/name@revision"
    )
    variables: list[str] = flag([], "the Space's public variables, each as NAME=VALUE")
    secrets: list[str] = flag([], "names of environment variables that become the Space's secrets")
    hardware: str = flag(
        "", "the Space's hardware, which may cost money", choices=["", *(kind.value for kind in SpaceHardware)]
    )
    storage: str = flag(
        "", "a storage bucket, made if missing, that the Space finds at /data, as user/name; paid by size"
    )
    private: bool = flag(True, "who may see a new repository: only you, or everyone")
    overwrite: bool = flag(False, "also empty a Space that holds what no push of this project made")
    dry_run: bool = flag(False, "write what would go to runs/push/ and send nothing")


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(PushFlags, __doc__, arguments)
    if not (settings.hub or settings.modelscope or settings.gguf or settings.space):
        raise HubError("nowhere to push to: give --hub, --modelscope, --gguf or --space")
    if settings.hub or settings.modelscope:
        push_adapter(settings)
    if settings.gguf:
        push_gguf(settings)
    if settings.space:
        push_space(settings)


def one_folder(settings: PushFlags) -> Path:
    """The adapter's folder where one is meant."""
    if len(settings.adapter) > 1:
        raise HubError(f"{len(settings.adapter)} adapters for one repository: push one adapter at a time")
    if not settings.adapter:
        raise HubError("no adapter to push: give its folder first, such as adapters/zhenhuan-gemma3-270m")
    return Path(settings.adapter[0])


def push_adapter(settings: PushFlags) -> None:
    folder = one_folder(settings)
    if settings.dry_run:  # its card is written in what would go, and stays as it is
        folder = written_out(upload.adapter_files(folder), folder.name)
    write_card(folder, settings.hub, settings.modelscope)
    show(upload.adapter_files(folder))
    if settings.dry_run:
        return print(f"nothing was sent; what would go is in {folder}")
    upload.push_where_asked(folder, settings.hub, settings.modelscope, settings.private)


def push_gguf(settings: PushFlags) -> None:
    adapter = inspection.inspect(one_folder(settings))
    if adapter.base_fingerprint not in ("", embedded.FINGERPRINT):
        raise HubError(
            f"{adapter.name} was trained on {adapter.base_model or 'another base model'}, and a GGUF is made of the "
            f"embedded one only; for a Modelfile, which Ollama takes as well: python -m train.export {adapter.folder}"
        )
    model = ROOT / "exports" / adapter.name / gguf.NAME
    if not model.is_file() or model.stat().st_mtime < (adapter.folder / WEIGHTS).stat().st_mtime:
        raise HubError(f"{model} is not there or older than the adapter: python -m train.export {adapter.folder}")
    target = ROOT / "runs" / "push" / settings.gguf.replace("/", "--")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    texts = {CARD: gguf_card(adapter, settings.gguf), **ollama.repository_files(adapter)}
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")
    shutil.copyfile(ROOT / NOTICE, target / NOTICE)
    files = {name: target / name for name in (*texts, NOTICE)} | {f"{adapter.name}-BF16.gguf": model}
    show(files)
    if settings.dry_run:
        return print(f"nothing was sent; what would go beside {model} is in {target}")
    print(f"pushed and verified: {upload.push_files(settings.gguf, files, settings.private, '.gguf')}")


def push_space(settings: PushFlags) -> None:
    variables, secrets = named_variables(settings.variables), named_secrets(settings.secrets)
    upload.check_public(variables, [*secrets.values(), huggingface_hub.get_token() or ""])
    if settings.storage:
        check_name(settings.storage)
    folders, speaks = speakers(settings)
    files = space_files.chosen(tracked_files(), folders)
    upload.check_contents(files)
    base = variables.get("BASE_MODEL", "")
    preload = base if upload.is_open(base) else ""
    if speaks:
        variables.setdefault("ADAPTER", speaks)
    if preload:
        print(f"preloaded: {base}, when the Space is built")
    target = ROOT / "runs" / "push" / settings.space.replace("/", "--")
    hardware = settings.hardware or hardware_of(settings.space)
    about = space_files.About(character(settings), preload, hardware)
    files = space_files.assemble(files, target, about)
    show(files)
    told = {"hardware": hardware, "variables": variables, "secrets": settings.secrets, "storage": settings.storage}
    print("; ".join(f"{what}: {value or 'none'}" for what, value in told.items()))
    if settings.dry_run:
        return print(f"nothing was sent; what would go is in {target}")
    space = upload.Space(
        *(settings.space, variables, secrets, settings.hardware, settings.storage),
        private=settings.private,
        overwrite=settings.overwrite,
    )
    print(f"pushed and verified: {upload.push_space(space, files)}")


def hardware_of(space: str) -> str:
    """What a Space runs on, or will: cpu-basic, as the Hub gives it, where there is none yet; "" where it is not told.

    Without a token, when nothing can be pushed, it is taken as new. Raises `HubError` where the Hub cannot be asked.
    """
    check_name(space)
    api = HfApi()
    with sentences(space):
        if huggingface_hub.get_token() is None or not api.repo_exists(space, repo_type="space"):
            return SpaceHardware.CPU_BASIC.value
        runtime = api.get_space_runtime(space)
    return str(runtime.requested_hardware or runtime.hardware or "")


def speakers(settings: PushFlags) -> tuple[list[Path], str]:
    """The adapter folders that go with the Space, and what its ADAPTER names; "" leaves that as it is.

    An adapter that was just pushed is followed on the Hub where the Space may read it, and goes along where not.
    """
    folders = [Path(folder) for folder in settings.adapter]
    readable = not settings.private or "HF_TOKEN" in settings.secrets
    repos = [source.text for source in sources.parse(settings.adapter_repo)]
    for source in sources.parse(settings.adapter_repo):
        check_name(source.repo or source.text)
    if settings.hub and readable:
        folders, repos = [], list(dict.fromkeys([*repos, settings.hub]))
    elif settings.hub:
        print(f"the Space gets the adapter's files: to have it follow {settings.hub}, add --secrets HF_TOKEN")
    if repos and not readable:
        print(f"the Space has no token of this push: {', '.join(repos)} must be public, or add --secrets HF_TOKEN")
    if not repos and not folders:
        return [path for path in (ROOT / "adapters" / DEFAULT,) if path.is_dir()], ""
    return folders, ",".join([*repos, *(folder.name for folder in folders)])


def character(settings: PushFlags) -> str:
    """Whose Space it is: who the first adapter was trained to be, or what its folder or repository is called where it
    does not say; "" for the default."""
    if settings.adapter and Path(settings.adapter[0]).name != DEFAULT:
        folder = Path(settings.adapter[0])
        training = read_json(folder / TRAINING, kind=AdapterError)
        return str(training.get("persona", {}).get("name", "")).strip() or folder.name
    return "" if settings.adapter else settings.adapter_repo.split(",")[0].split("@")[0].split("/")[-1]


def named_variables(entries: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE by name; what is of another form may be a secret, and is not shown."""
    for place, entry in enumerate(entries, 1):
        if "=" not in entry:
            raise HubError(f"number {place} of --variables has no =: give each as NAME=VALUE")
    return dict(entry.split("=", 1) for entry in entries)


def named_secrets(names: Sequence[str]) -> dict[str, str]:
    """The values of these environment variables, by name."""
    if missing := [name for name in names if not os.environ.get(name)]:
        raise HubError(f"secret {missing[0]} has no value: set the environment variable {missing[0]}")
    return {name: os.environ[name] for name in names}


def tracked_files() -> dict[str, Path]:
    """What git tracks here, by its path; raises `HubError` outside a clone."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = [name for name in done.stdout.split("\0") if (ROOT / name).is_file()]
    if done.returncode != 0 or not names:
        raise HubError(f"git lists no files in {ROOT}: push a Space from a clone of this repository")
    return {name: ROOT / name for name in names}


def show(files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        data = path.read_bytes()
        print(f"{hashlib.sha256(data).hexdigest()[:16]} {len(data):>12,}  {name}")


def written_out(files: Mapping[str, Path], name: str) -> Path:
    """Copies of the files, in a folder of this name."""
    target = ROOT / "runs" / "push" / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file, path in files.items():
        shutil.copyfile(path, target / file)
    return target


if __name__ == "__main__":
    with one_line_errors():
        main()
