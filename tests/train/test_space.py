"""The whole way to a Space with what this repository really holds: sent, taken out, its imports covered, started."""

import ast
import re
import signal
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from playwright.sync_api import Browser

from roleplay.environment import ROOT
from tests import space, tiny
from tests.hub_server import TOKEN, Hub
from train import push
from train.publishing import space_files

pytest_plugins = ("pages",)


@pytest.fixture
def arrived(server: Hub, folder: Path, tmp_path: Path) -> Path:
    """The Space of this very repository with one adapter that git does not know, in an empty folder."""
    push.main([str(folder), "--space", "me/parlour"])
    repo = server.repos["spaces/me/parlour"]
    assert repo.settings == {"variables": {"ADAPTER": "tiny"}}
    return space.take_out(repo, tmp_path / "space" / "app")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_a_space_needs_and_nothing_else(arrived: Path) -> None:
    tops = {"app.py", "page", "roleplay", "train", "dataset", "assets", "adapters"}
    tops |= {"requirements.txt", "README.md", "LICENSE", "NOTICE"}
    assert {name.split("/")[0] for name in names(arrived)} == tops
    assert {path.name for path in (arrived / "adapters").iterdir()} == {"tiny"}
    assert not [name for name in names(arrived) if "screenshots" in name or name.endswith(".ipynb")]
    rows = {path.name for path in (arrived / "dataset" / "zhenhuan").iterdir()}
    assert "rows.json" in rows and not rows & {"intents.json", "conversations.json"}


def test_no_link_of_a_space_leads_nowhere(arrived: Path) -> None:
    pages = list(arrived.rglob("*.md"))
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([\w./-]+)[#)]", page.read_text(encoding="utf-8"))
    ]
    assert links and not [(page, link) for page, link in links if not (page.parent / link).exists()]
    assert (
        "[" not in (arrived / "README.md").read_text(encoding="utf-8").split("Settings, GPUs, Spaces")[1].split("\n")[0]
    )


def closure(requirements: Path) -> set[str]:
    """Distributions that installing a requirements file brings, by canonical name."""
    waiting = [Requirement(line).name for line in requirements.read_text().splitlines() if line[:1].isalpha()]
    found: set[str] = set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            try:
                needs = [Requirement(text) for text in metadata.requires(name) or []]
            except metadata.PackageNotFoundError:
                continue  # of another platform
            found.add(name)
            waiting += [need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    return found


def test_requirements_cover_every_import(arrived: Path) -> None:
    there, own = closure(arrived / "requirements.txt"), {path.stem for path in arrived.iterdir()}
    providers = metadata.packages_distributions()
    lacking = set()
    for path in arrived.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in found} - own - set(sys.stdlib_module_names):
                by = {re.sub(r"[-_.]+", "-", name).lower() for name in providers.get(top, [])}
                lacking |= set() if by & there else {(path.name, top)}
    assert lacking == set()


# As Gradio does where it renders on the server: `launch` puts handlers of its own in place of whatever is there.
# The file that this process writes and sends gets a name that the test knows.
LIKE_GRADIO = """
import runpy, signal, types, gradio
from roleplay.results import votes
votes.uuid4 = lambda: types.SimpleNamespace(hex="late")
launch = gradio.Blocks.launch
def launched(*given, **named):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: (print("node stopped"), exit(0)))
    page = launch(*given, **named)
    print("launched", flush=True)
    return page
gradio.Blocks.launch = launched
runpy.run_path("app.py", run_name="__main__")
"""


def as_on_spaces(scratch: Path) -> dict[str, str]:
    """What Spaces set, with a Node of which is seen whether Gradio starts it to render pages."""
    node = scratch / "node"
    node.write_text(f"#!/bin/sh\ntouch '{scratch}/node was started'\n")
    node.chmod(0o755)
    return {"SYSTEM": "spaces", "GRADIO_SSR_MODE": "True", "GRADIO_NODE_PATH": str(node), "CPU_CORES": "3.5"}


def test_what_arrived_starts_answers_in_a_browser_and_sends_its_votes_when_it_is_stopped(
    arrived: Path, server: Hub, tmp_path: Path, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.gemma().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    hub = {"VOTES_REPO": "me/votes", "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    settings = hub | {"HF_HUB_OFFLINE": "0", "BASE_MODEL": str(tmp_path / "base"), "ADAPTER": "tiny"}
    settings |= {"PERSONA": "dataset/keeper/persona.json"} | as_on_spaces(tmp_path)
    with space.running([sys.executable, "-c", LIKE_GRADIO], arrived, 240, **settings) as (url, process):
        said = (arrived.parent / "said.txt").read_text()
        space.chat(browser, url)
        (arrived / "votes" / "votes-late.jsonl").write_text("{}\n")
        deadline = time.monotonic() + 30
        while "launched" not in (arrived.parent / "said.txt").read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(1)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert "adapter      tiny: rank 4" in said and "http://0.0.0.0:" in said
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["left", "right"]
    assert "votes-late.jsonl" in server.repos["datasets/me/votes"].files
    assert "node stopped" in (arrived.parent / "said.txt").read_text()
    assert "no CUDA GPU; 3 threads" in said and not (tmp_path / "node was started").exists()


def test_a_cpus_space_gets_pytorch_without_cuda(server: Hub, folder: Path) -> None:
    lines = {}
    for hardware in ("cpu-basic", "l4x1", "zero-a10g", ""):
        command = [str(folder), "--space", f"me/on-{hardware}x"]
        push.main([*command, "--hardware", hardware])
        repo = server.repos[f"spaces/me/on-{hardware}x"]
        lines[hardware] = repo.files["requirements.txt"].decode().splitlines()
        push.main(command)  # a later push asks what the Space has
        assert repo.files["requirements.txt"].decode().splitlines() == lines[hardware]
    own = (ROOT / "requirements.txt").read_text().splitlines()
    assert lines["l4x1"] == lines["zero-a10g"] == own and not [line for line in own if "flash" in line]
    torch = next(line for line in own if line.startswith("torch=="))
    wheels = f"--extra-index-url {space_files.CPU_WHEELS}"
    assert lines["cpu-basic"] == lines[""] == [wheels, *(f"{line}+cpu" if line == torch else line for line in own)]


def test_the_default_adapter_goes_where_none_is_named(server: Hub) -> None:
    push.main(["--space", "me/parlour", "--hardware", "zero-a10g", "--variables", "BASE_MODEL=embedded"])
    repo = server.repos["spaces/me/parlour"]
    assert f"adapters/{push.DEFAULT}/adapter_model.safetensors" in repo.files
    assert repo.settings == {"variables": {"BASE_MODEL": "embedded"}, "hardware": "zero-a10g"}
    before = dict(repo.files)
    push.main(["--space", "me/parlour"])  # its own Space may be pushed to again
    assert repo.files == before
