"""What a start finds out: the adapters that fit, and whose persona each of them has."""

import json
from pathlib import Path

import pytest

from page.serving import start
from roleplay.environment import Environment
from roleplay.errors import DataError
from roleplay.text import personas
from roleplay.weights import layout
from tests import tiny


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A tiny base model with two adapters, whose personas are called one and two."""
    tiny.gemma().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    for name in ("one", "two"):
        persona(tiny.adapter(tmp_path / "adapters" / name), {"name": name, "system_prompt": f"You are {name}."})
    monkeypatch.setattr(start, "FOLDER", tmp_path / "adapters")
    return Environment(
        base_model=str(tmp_path / "base"), cache=tmp_path / "cache", engine_url="", persona="", adapter=""
    )


def persona(folder: Path, value: object) -> None:
    training = json.loads((folder / layout.TRAINING).read_text(encoding="utf-8"))
    (folder / layout.TRAINING).write_text(json.dumps(training | {"persona": value}), encoding="utf-8")


def names(started: start.Started) -> dict[str, str]:
    return {name: about.persona.name if about.persona else "" for name, about in started.about.items()}


def test_every_adapter_has_the_persona_it_was_trained_to_be(settings: Environment) -> None:
    started = start.start(settings, settings.base_model)
    assert names(started) == {"one": "one", "two": "two"}
    assert (started.persona.name, started.guests is not None) == ("one", bool(settings.hub_adapters))


def test_persona_is_that_of_every_adapter_where_it_is_set(settings: Environment, tmp_path: Path) -> None:
    (tmp_path / "me.json").write_text('{"name": "me", "system_prompt": "You are me."}', encoding="utf-8")
    object.__setattr__(settings, "persona", str(tmp_path / "me.json"))
    started = start.start(settings, settings.base_model)
    assert names(started) == {"one": "me", "two": "me"} and started.persona.name == "me"


@pytest.mark.parametrize("value", [{"name": 3, "system_prompt": "x"}, {"system_prompt": "x", "openers": ["x" * 5000]}])
def test_a_persona_that_is_none(
    settings: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: object
) -> None:
    persona(tmp_path / "adapters" / "two", {"name": "two", **value})  # type: ignore[dict-item]
    assert names(start.start(settings, settings.base_model)) == {"one": "one", "two": ""}
    assert "persona      not that of two: " in capsys.readouterr().out
    persona(tmp_path / "adapters" / "one", {"name": 3, "system_prompt": "x"})
    with pytest.raises(DataError, match="must be texts"):
        start.start(settings, settings.base_model)


def test_without_a_persona_in_training_zhen_huan_speaks(settings: Environment, tmp_path: Path) -> None:
    persona(tmp_path / "adapters" / "one", {})
    assert start.start(settings, settings.base_model).persona == personas.default()
