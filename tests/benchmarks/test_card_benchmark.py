"""`benchmarks.card` keeps its minutes, says what became of every part, and leaves nothing running."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import card
from roleplay.environment import ROOT
from roleplay.errors import RoleplayError
from roleplay.flags import parse

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
# A child in a session of its own, as those of `accelerate launch` are.
HANGS = """
import os, time
child = os.fork()
if child:
    print(child, flush=True)
else:
    os.setsid()
time.sleep(600)
"""
WRITES = "import sys; open(sys.argv[1], 'w').write('{\"ms\": 3}')"


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_every_part_is_a_command_that_can_work(device: str, tmp_path: Path) -> None:
    planned = card.parts(card.Flags(out=str(tmp_path), device=device))
    assert len({part.name for part in planned}) == len(planned)
    for part in planned:
        if part.arguments[:2] == ("-m", "pytest"):
            files = [argument for argument in part.arguments if argument.startswith("tests/")]
            assert files and all((ROOT / file).is_file() for file in files)
        elif part.arguments[0] == "-m":
            module = importlib.import_module(part.arguments[1])
            assert parse(module.Flags, "", part.arguments[2:]).json == part.json
        else:
            compile(part.arguments[1], part.name, "exec")


def test_a_part_that_hangs_is_ended_with_all_that_it_started_and_the_next_begins(tmp_path: Path) -> None:
    file = str(tmp_path / "figures.json")
    todo = [
        card.Part("hangs", ("-c", HANGS), 0.8),
        card.Part("fails", ("-c", "raise SystemExit('no memory')"), 0.5),
        card.Part("measures", ("-c", WRITES, file), 0.5, file),
        card.Part("takes long", ("-c", WRITES, file), 60.0, file),
    ]
    flags = card.Flags(out=str(tmp_path), minutes=0.5, device="cpu")
    results = card.run_all(todo, flags, dict(os.environ))
    assert json.loads((tmp_path / "card.json").read_text()) == results
    assert results["hangs"]["result"].startswith("ended after")
    assert not any(card.environment_of(int(results["hangs"]["printed"])))  # nor has one that nobody reaped yet
    assert results["fails"]["result"] == "failed" and "no memory" in results["fails"]["printed"]
    assert results["measures"]["result"] == "done" and results["measures"]["figures"] == {"ms": 3}
    assert results["takes long"]["result"].startswith("left out: it takes 60 seconds")


def test_without_a_card_it_ends_before_anything_is_measured(tmp_path: Path) -> None:
    file = str(tmp_path / "facts.json")
    todo = [card.Part(card.FIRST, ("-c", WRITES, file), 1.0, file), card.Part("generation", ("-c", HANGS), 1.0)]
    with pytest.raises(RoleplayError, match="no CUDA GPU: give --device cpu"):
        card.run_all(todo, card.Flags(out=str(tmp_path)), dict(os.environ))
