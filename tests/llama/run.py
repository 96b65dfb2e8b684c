"""The exported GGUF in a real llama.cpp: it says the same greedy words as the adapter on the page's own engine.

    python -m venv .venv-llama && .venv-llama/bin/pip install -r tests/llama/requirements.txt
    python -m tests.llama.run --python .venv-llama/bin/python

llama.cpp rounds activations to 8 bits where weights are quantised, so two tokens that are all but equally likely may
change places, and all that follows differs. What has to hold is that the replies begin the same: `AGREE` of the shorter
one on average. The layout comes from the file's own chat template. It ends with status 1 where they do not.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, Question, Request, Sampling
from roleplay.environment import ROOT, Environment
from roleplay.errors import RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.weights import base_models, embedded, inspection
from tests.vllm.run import QUESTIONS, common
from train.export import export
from train.publishing import gguf

AGREE = 0.7


@dataclass(frozen=True)
class Flags:
    python: str = flag(".venv-llama/bin/python", "the interpreter of the environment that has xllamacpp")
    adapter: str = flag("adapters/zhenhuan-alone-gemma3-270m", "the adapter, of the embedded base model")
    tokens: int = flag(24, "length of the replies that are compared")


def main() -> int:
    settings = parse(Flags, __doc__)
    adapter = inspection.inspect(Path(settings.adapter))
    base = base_models.load(embedded.NAME, Environment().cache, dtype="float32")
    engine, here = LocalEngine(base, [adapter]), []
    greedy = Sampling(temperature=0, repetition_penalty=1, frequency_penalty=0, max_new_tokens=settings.tokens)
    for question in QUESTIONS:
        *_, last = engine.answer(Request({ADAPTER: Question(adapter.persona, (), question)}, greedy))
        here.append(last[ADAPTER].text)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / adapter.name
        export(adapter, base, folder)
        command = [settings.python, str(ROOT / "tests" / "llama" / "say.py"), str(folder / gguf.NAME)]
        asked = json.dumps({"persona": adapter.persona, "questions": QUESTIONS, "tokens": settings.tokens})
        done = subprocess.run(command, input=asked, capture_output=True, text=True)
    if done.returncode:
        raise RoleplayError(f"llama.cpp said nothing: {(done.stderr.splitlines() or ['no output'])[-1]:.200}")
    there = json.loads(done.stdout.splitlines()[-1])
    shares = [common(*pair) for pair in zip(here, there, strict=True)]
    for question, ours, theirs, share in zip(QUESTIONS, here, there, shares, strict=True):
        print(f"{question} {share:.0%} the same\n  here  {ours!r}\n  there {theirs!r}")
    mean = sum(shares) / len(shares)
    print(f"greedy agreement {mean:.0%} (at least {AGREE:.0%})")
    return int(mean < AGREE)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
