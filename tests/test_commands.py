"""Every command that is written somewhere can work: README, docs, cards, docstrings, Makefile, what programs advise.

Each is parsed by the flags of the program that it names, in this process, and what it names of this repository has to
be there. What trains, measures or serves is not run; every program shows its help, and every push is run dry.
"""

import ast
import importlib
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from huggingface_hub.cli.hf import app as hub_app
from modelscope_hub.cli.main import _build_parser as modelscope_parser

from roleplay import flags
from roleplay.environment import ROOT
from tests.hub_server import TOKEN, Hub
from train import push

PROSE = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("dataset/**/README.md"),
    *ROOT.glob("adapters/*-gemma3-270m/README.md"),  # those of a clone
    *ROOT.glob("train/publishing/*.md.jinja"),
    *ROOT.glob("train/*.ipynb"),
]
CODE = [ROOT / "app.py"] + [
    path
    for room in ("page", "roleplay", "train", "dataset", "benchmarks", "tests")
    for path in (ROOT / room).rglob("*.py")
]
POWERSHELL = r"```powershell\n(.*?)```"
MAKEFILE = ROOT / "Makefile"
# What a reader makes or downloads, by the folder it lies in.
INVENTED: dict[str, tuple[str, ...]] = {
    "adapters": (
        *("mara", "mine", "zhenhuan-mine", "zhenhuan-mine-alone", "zhenhuan-mine-rows"),
        *("me", "keeper", "notebook", "NAME", "VALUE"),
    ),
    "dataset": ("mara",),
    "tests": (),
}
OTHERS = ("cd", "export", ".", "sh", "pip", "ollama", "vllm", "llama-server", "docker", "python3")
SETTINGS = set(re.findall(r'"([A-Z_]{4,})"', (ROOT / "roleplay" / "environment.py").read_text(encoding="utf-8")))
SETTINGS |= {"OMP_NUM_THREADS", "GRADIO_ROOT_PATH", "HF_ENDPOINT"}  # which libraries read
OURS = re.compile(r"(?:^|(?<=[ `(:]))((?:[A-Z_]+=\S+ )*python (?:-m [\w.]+|[\w/]+\.py)[^\n`]*)", re.MULTILINE)


def fenced(text: str) -> Iterator[str]:
    """The lines of the shell blocks of Markdown, those that go on in the next one joined."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from re.sub(r"\s*\\\n\s*", " ", block).splitlines()


def written(path: Path) -> Iterator[str]:
    """The commands in a file, as a shell would be given them."""
    text = path.read_text(encoding="utf-8")
    if path == MAKEFILE:
        values = {"PYTHON": "python", "VENV": ".venv", "BIN": ".venv/bin", "CHARACTER": "keeper"}
        text = re.sub(r"\s*\\\n\s*", " ", text)
        yield from re.findall(r"^\t(.*python .*)$", re.sub(r"\$\((\w+)\)", lambda m: values.get(m[1], ""), text), re.M)
        return
    if path.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        yield from re.findall(r"^%(pip .*)$", text, re.MULTILINE)
    if path in PROSE:
        yield from re.findall(r"^(?:python|pip) .*$", "".join(re.findall(POWERSHELL, text, re.DOTALL)), re.MULTILINE)
        yield from (re.sub(r"\{%.*?%\}", "", line) for line in fenced(text) if not line.startswith("{%"))
        yield from (found[0] for found in map(OURS.match, re.findall(r"`([^`]+)`", text.replace("\n", " "))) if found)
        return
    for said in texts(ast.parse(text), only_manual="tests" in path.parts):
        yield from (found.rstrip(").") for found in OURS.findall(re.sub(r"\s*\\\n\s*", " ", said)))


def texts(module: ast.Module, only_manual: bool) -> Iterator[str]:
    """The strings of a module, its docstring among them; what is put in when it runs is a VALUE."""
    if only_manual:
        yield ast.get_docstring(module) or ""
        return
    formatted = [node for node in ast.walk(module) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in formatted for part in node.values}
    for node in formatted:
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def simple(line: str) -> Iterator[list[str]]:
    """The programs that a line calls, each with its arguments; settings before it stay before it."""
    words = shlex.split(re.sub(r"\{\{.*?\}\}", "VALUE", line).replace("...", ""), comments=True)
    one: list[str] = []
    for word in [*words, "&&"]:
        if word in ("&&", "|", ";", ">"):
            yield from [one] if one else []
            one = []
        else:
            one.append(word)


COMMANDS = sorted(
    {
        (str(path.relative_to(ROOT)), shlex.join(one))
        for path in (*PROSE, *CODE, MAKEFILE)
        for line in written(path)
        for one in simple(line)
    }
)


@cache
def flags_of(module: str) -> Any:
    """The dataclass that a program parses its command line with, as the call to `parse` names it; None without."""
    loaded = importlib.import_module(module)
    for node in ast.walk(ast.parse(Path(str(loaded.__file__)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "parse":
            return getattr(loaded, ast.unparse(node.args[0]))
    return None


def is_ours(word: str) -> bool:
    """Whether an argument names a file or folder that a clone has, and no reader's own."""
    parts = Path(word).parts
    return word.startswith("requirements") or (len(parts) > 1 and parts[1] not in INVENTED.get(parts[0], parts))


def check_hub(arguments: list[str]) -> None:
    """Has the Hub's own command line parse its arguments; raises `ClickException` for what it does not take."""
    command: Any = hub_app
    context = command.make_context("hf", arguments)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def check(words: list[str]) -> None:
    """Raises `SystemExit`, `ClickException` or `AssertionError` for a command that cannot work."""
    while "=" in words[0]:
        assert words[0].split("=")[0] in SETTINGS, f"no setting {words[0]}"
        words = words[1:]
        if not words:
            return
    program, arguments = words[0].rpartition("/bin/")[2], words[1:]
    assert not (lacking := [word for word in arguments if is_ours(word) and not (ROOT / word).exists()]), lacking
    if program == "hf":
        check_hub(arguments)
    elif program == "modelscope":
        modelscope_parser().parse_args(arguments)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", MAKEFILE.read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets), f"no target {arguments}"
    elif program == "python" and arguments[:2] not in (["-m", "pytest"], ["-m", "venv"]) and "/" not in arguments[0]:
        module, rest = ("app", arguments[1:]) if arguments[0] == "app.py" else (arguments[1], arguments[2:])
        known = flags_of(module)
        assert known or not rest or module == "tests.zero_space", f"{module} takes no arguments"
        if known:
            flags.parse(known, None, rest)
    else:
        assert program in (*OTHERS, "python"), f"unknown program {program}"


@pytest.mark.parametrize(("where", "command"), [c for c in COMMANDS if "-m VALUE" not in c[1]])
def test_every_written_command_can_work(where: str, command: str) -> None:
    check(shlex.split(command))


PROGRAMS = sorted({name for _, command in COMMANDS for name in re.findall(r"python (?:-m )?(\w+\.[\w.]+)", command)})


@pytest.mark.parametrize("program", [name.removesuffix(".py") for name in PROGRAMS if name != "tests.zero_space"])
def test_every_program_shows_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    if not flags_of(program):
        pytest.skip("it takes no arguments")
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    monkeypatch.delitem(sys.modules, program)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(program, run_name="__main__")
    assert not ended.value.code and "show this help message" in capsys.readouterr().out


PUSHES = sorted({command for _, command in COMMANDS if "-m train.push " in command and "VALUE" not in command})


@pytest.mark.parametrize("command", [command for command in PUSHES if "--gguf" not in command])  # which needs an export
def test_every_written_push_goes_through_dry(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for name in ("HF_TOKEN", "APP_AUTH"):
        monkeypatch.setenv(name, TOKEN)
    words = re.sub(r" (?:me|you)/", " dry/", command).split()  # into folders of its own: tests run side by side
    given = words[words.index("train.push") + 1 :]
    push.main([*(str(folder) if word.startswith("adapters/") else word for word in given), "--dry-run"])
    assert "nothing was sent" in capsys.readouterr().out and server.repos == {}


WRONG = [
    *("python -m train.lora --epoch 3", "python app.py me", "make demos", "NO_SUCH=1 python app.py", "nano x"),
    *(
        "hf buckets make you/room",
        "hf download me/x --folder x",
        "python -m train.export adapters/kepeer",
        "pip install -r requirements-x.txt",
    ),
    *("python tests/llama/speak.py MODEL.gguf", "python -m train.push --space you/room --hardware l4x9"),
]


def test_commands_are_found_wherever_they_are_written() -> None:
    places = {where for where, _ in COMMANDS}
    assert {"README.md", "Makefile", "docs/deploy.md", "train/push.py", "page/serving/start.py"} <= places
    assert {f"adapters/{name}-gemma3-270m/README.md" for name in ("zhenhuan", "zhenhuan-alone", "wukong")} <= places
    assert {"train/publishing/card.md.jinja", "tests/llama/say.py"} <= places
    assert {"docs/install.md", "train/character.ipynb"} <= places


@pytest.mark.parametrize("wrong", WRONG)
def test_a_command_that_cannot_work_fails(wrong: str) -> None:
    with pytest.raises((SystemExit, AssertionError, click.ClickException)):
        check(shlex.split(wrong))


def test_what_a_container_keeps_lies_in_its_volume() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (volume,) = re.findall(r"^VOLUME (\S+)$", dockerfile, re.MULTILINE)
    kept = dict(re.findall(rf"(\w+)={volume}(\S*)", dockerfile))
    assert {"STORAGE", "ROLEPLAY_CACHE", "HF_HOME", "MODELSCOPE_CACHE"} <= kept.keys()
    assert f"ln -s {volume}/votes votes" in dockerfile
