"""A real vLLM on loopback with the embedded model and the default adapter, and a check that it agrees with our engine.

    python -m venv .venv-vllm && .venv-vllm/bin/pip install -r tests/vllm/requirements.txt
    .venv-vllm/bin/pip uninstall -y torchvision torchaudio torchcodec   # built for another torch than vLLM's
    python -m tests.vllm.run --python .venv-vllm/bin/python

Greedy replies cannot be the same to the end: both compute in bfloat16, in another order, so two tokens that are all but
equally likely may change places, and all that follows differs. What has to hold is that the replies begin the same
(`AGREE` of the shorter one on average), that every reply is nearer to its own side than to the other side of our
engine, that both sides differ, and that the page with ENGINE_URL shows both. The merged model of `train.export` is
started by its own vllm.sh, and has to begin its replies alike too. It prints one line per check and ends with status 1
if one fails. `serving` is also what benchmarks.concurrency uses.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

from benchmarks.headless import Tab
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Engine, Question, Request, Sampling
from roleplay.engine.remote import RemoteEngine
from roleplay.environment import ROOT, Environment
from roleplay.errors import ModelError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.weights import base_models, embedded, inspection
from roleplay.weights.adapters import Adapter
from roleplay.weights.layout import CARD
from train.export import export

PORT = 8765
CONTEXT = 2048
START_SECONDS = 600
QUESTIONS = ("你是谁？", "今夜月色如何？", "Who are you?", "可否作两句诗？")
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
AGREE = 0.5
NEUTRAL = {"repetition_penalty": 1.0, "frequency_penalty": 0.0}  # generation_config.json has others
PAGE_PORT = 8766


@dataclass(frozen=True)
class Flags:
    python: str = flag(".venv-vllm/bin/python", "the interpreter of the environment that has vLLM")
    adapter: str = flag("adapters/zhenhuan-alone-gemma3-270m", "the adapter that is served beside the base model")
    tokens: int = flag(32, "length of the replies that are compared")


@contextmanager
def serving(python: str, model: Path, adapter: Adapter) -> Iterator[str]:
    """The address of a server of a base model and an adapter, as the adapter's card starts it; as `running`."""
    command = [str(Path(python).absolute()), "-m", "vllm.entrypoints.openai.api_server", "--model"]
    command += [str(model.resolve()), "--served-model-name", "base", *flags_on_card(adapter)]
    # On a CPU, vLLM 0.32 gives a row without an adapter index -1, which is the last slot: it has to stay empty.
    command += ["--max-loras", "2"]
    command += ["--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--enforce-eager", "--port", str(PORT)]
    with running(command, adapter.folder.resolve().parent) as url:
        yield url


def flags_on_card(adapter: Adapter) -> list[str]:
    """What an adapter's card has `vllm serve` take, beside the adapter's folder."""
    card = (adapter.folder / CARD).read_text(encoding="utf-8").replace("\\\n", " ")
    return shlex.split(re.findall(r"^vllm serve \S+ (.*)$", card, re.MULTILINE)[0])


@contextmanager
def running(command: list[str], folder: Path = ROOT) -> Iterator[str]:
    """The address of a server running in `folder`; raises `ModelError` with its last line when it does not start.

    The command may be a script that calls `vllm`, which is that of the interpreter's environment.
    """
    log_path = ROOT / "runs" / "vllm.log"
    log_path.parent.mkdir(exist_ok=True)
    url = f"http://127.0.0.1:{PORT}/v1"
    with log_path.open("w") as log:
        environment = os.environ | ENVIRONMENT
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(server, url, log_path)
            yield url
        finally:
            server.terminate()
            server.wait(60)


def wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(START_SECONDS):
        with suppress(requests.RequestException):
            if requests.get(f"{url}/models", timeout=5).ok:
                return
        if server.poll() is not None:
            break
        time.sleep(1)
    raise ModelError(f"vLLM did not start: {(log.read_text().splitlines() or ['no output'])[-1]:.200}; see {log}")


def ask(engine: Engine, persona: str, user: str, tokens: int) -> dict[str, Answer]:
    sampling = Sampling(temperature=0, repetition_penalty=1.0, frequency_penalty=0.0, max_new_tokens=tokens)
    *_, last = engine.answer(Request({side: Question(persona, (), user) for side in (ADAPTER, BASE)}, sampling))
    return last


def common(a: str, b: str) -> float:
    """Share of the shorter text that both begin with."""
    shorter = min(len(a), len(b))
    same = next((n for n in range(shorter) if a[n] != b[n]), shorter)
    return same / shorter if shorter else float(a == b)


def page_answers(url: str, adapter: str) -> bool:
    """Whether the real app, started with ENGINE_URL, answers a message on both sides."""
    told = {"ENGINE_URL": url, "BASE_MODEL": embedded.NAME, "ADAPTER": adapter, "PORT": str(PAGE_PORT)}
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=os.environ | told)
    try:
        tab = Tab.when_up(f"http://127.0.0.1:{PAGE_PORT}", app)
        composer = tab.find("textbox", "submit")
        tab.values[composer] = QUESTIONS[0]
        tab.fire(composer, "submit")
        answers = tab.record()[-1]["answers"]
        print(*(f"page {side}: {answer['stop']} {answer['text'][:60]!r}" for side, answer in answers.items()), sep="\n")
        return {answer["stop"] for answer in answers.values()} <= {"end", "length"} and set(answers) == {ADAPTER, BASE}
    finally:
        app.terminate()
        app.wait(60)


def exported(python: str, adapter: Adapter, base: base_models.BaseModel, tokens: int) -> list[str]:
    """Greedy replies to `QUESTIONS` of the merged model, served by the very script that an export holds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / adapter.name
        export(adapter, base, folder)
        told = Path(scratch) / "vllm-0.dist-info" / "METADATA"  # its command asks for a package of that name, and this
        told.parent.mkdir()  # one is called vllm-cpu
        told.write_text("Name: vllm\nVersion: 0+cpu")  # which is how it knows that there is no GPU
        path = f"{Path(python).absolute().parent}:{os.environ['PATH']}"  # where `vllm` is
        command = [
            "env",
            f"PATH={path}",
            f"PYTHONPATH={scratch}",
            "sh",
            str(folder / "vllm.sh"),
            "--enforce-eager",
            "--port",
            str(PORT),
        ]
        with running(command) as url:
            replies = []
            for user in QUESTIONS:
                messages = [{"role": "system", "content": adapter.persona}, {"role": "user", "content": user}]
                asked = {"model": adapter.name, "messages": messages, "temperature": 0, "max_tokens": tokens}
                answer = requests.post(f"{url}/chat/completions", json=asked | NEUTRAL, timeout=START_SECONDS)
                answer.raise_for_status()
                replies.append(answer.json()["choices"][0]["message"]["content"])
            return replies


def main() -> int:
    settings = parse(Flags, __doc__)
    cache = Environment().cache
    adapter = inspection.inspect(Path(settings.adapter))
    base = base_models.load(embedded.NAME, cache, dtype="bfloat16")
    local, failed = LocalEngine(base, [adapter]), 0
    with serving(settings.python, embedded.prepare(cache), adapter) as url:
        remote = RemoteEngine(url, base.tokenizer, [adapter])
        print(*remote.describe(), sep="\n")
        shares = []
        for user in QUESTIONS:
            here, there = (ask(engine, adapter.persona, user, settings.tokens) for engine in (local, remote))
            for side in (ADAPTER, BASE):
                shares.append(common(here[side].text, there[side].text))
                print(f"{user} {side}: {shares[-1]:.0%} the same")
                print(f"  here  {here[side].text!r}\n  there {there[side].text!r}")
                other = BASE if side == ADAPTER else ADAPTER
                failed += common(there[side].text, here[other].text) >= shares[-1]
            failed += there[ADAPTER].text == there[BASE].text
            failed += not all(answer.stop in ("end", "length") for answer in there.values())
        failed += not page_answers(url, adapter.name)
    for user, there in zip(QUESTIONS, exported(settings.python, adapter, base, settings.tokens), strict=True):
        said = ask(local, adapter.persona, user, settings.tokens)[ADAPTER].text
        shares.append(common(said, there))
        print(f"{user} exported, by vllm.sh: {shares[-1]:.0%} the same\n  here  {said!r}\n  there {there!r}")
    mean = sum(shares) / len(shares)
    print(
        f"greedy agreement {mean:.0%} (at least {AGREE:.0%}); sides that mixed, did not differ or did not end: {failed}"
    )
    return int(failed > 0 or mean < AGREE)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
