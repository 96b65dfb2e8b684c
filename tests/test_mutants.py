"""The list of deliberate damages fits the code and the tests that there are; `make mutants` applies them."""

import ast
import re

import pytest

from roleplay.environment import ROOT
from tests.damages import DAMAGES, Damage
from tests.mutants import fits


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.broken)
def test_every_damage_fits_the_code_and_names_tests_that_there_are(damage: Damage) -> None:
    assert fits(damage) and damage.new != damage.old
    names = ""
    for file in damage.tests.split():
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        names += " ".join(node.name for node in tree.body if isinstance(node, ast.FunctionDef)) + " " + file
    for words in re.split(r" or ", damage.chosen):
        word = re.split(r" and ", words)[0]
        assert word in names, f"no test is called {word!r}"


def test_promises_are_many_and_each_is_another() -> None:
    assert len({damage.broken for damage in DAMAGES}) == len(DAMAGES) >= 40
