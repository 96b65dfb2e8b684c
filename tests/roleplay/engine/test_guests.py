"""Adapters from the Hub in a running engine: found, fetched, chatted with, refused, and sent away when too many."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from safetensors.torch import load_file, save

from page import state
from page.adapters_panel import PanelHandlers
from page.build import build, launch_options
from page.serving.rate_limit import Rate
from page.serving.start import Started
from page.sides_panel import SidesHandlers
from roleplay.disk import alone
from roleplay.engine.guests import Guests
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
from roleplay.errors import AdapterError, HubError
from roleplay.results.votes import Box
from roleplay.text import personas
from roleplay.weights import base_models as models
from roleplay.weights import inspection, layout
from roleplay.weights.adapters import Adapter
from tests import tiny
from tests.hub_server import Hub
from tests.raw import Visitor
from train import push

TAG = b"base_model:adapter:google/gemma-3-270m roleplay-adapter"
ASK = Request(dict.fromkeys((ADAPTER, BASE), Question("", (), "?")), Sampling(temperature=0.0, max_new_tokens=8))


@pytest.fixture
def engine(pristine: Path) -> LocalEngine:
    chosen = ("cpu", "test"), ("float32", "test"), ("sdpa", "test")
    base = models.BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", *chosen)
    return LocalEngine(base, [inspection.inspect(pristine)], 400)


@pytest.fixture
def arrived() -> list[Adapter]:
    return []


@pytest.fixture
def guests(engine: LocalEngine, arrived: list[Adapter], tmp_path: Path) -> Guests:
    return Guests(engine, tiny.BASE_NAME, tmp_path / "cache", 2, arrived.append)


def add(server: Hub, pristine: Path, name: str, scale: float = -1.0, **files: bytes) -> None:
    """A public adapter on the Hub whose matrices are the local one's times `scale`."""
    weights = load_file(pristine / layout.WEIGHTS)
    scaled = save({key: w * scale if ".lora_B." in key else w for key, w in weights.items()})
    contents = {path.name: path.read_bytes() for path in pristine.iterdir()} | {layout.WEIGHTS: scaled, "tags": TAG}
    server.add(f"models/{name}", contents | files, private=False)


def sides(engine: LocalEngine) -> SidesHandlers:
    return SidesHandlers(engine, {}, personas.default())


def said(engine: LocalEngine, name: str) -> str:
    *_, last = engine.answer(replace(ASK, adapter=name))
    return last[ADAPTER].text


def test_found_fetched_and_chatted_with(
    server: Hub, pristine: Path, engine: LocalEngine, guests: Guests, arrived: list[Adapter], tmp_path: Path
) -> None:
    add(server, pristine, "you/poet")
    server.add("models/you/other", {"tags": b"base_model:adapter:other/model roleplay-adapter"}, private=False)
    assert guests.listed() == ["you/poet"]
    before = said(engine, "tiny")
    guests.invite("you/poet")
    assert engine.adapters() == ["tiny", "you/poet"]
    assert said(engine, "you/poet") != before == said(engine, "tiny")
    assert (engine.kl_to_base("you/poet") or 0) > 0
    assert [guest.name for guest in arrived] == ["you/poet"]
    assert list((tmp_path / "cache").iterdir()) == []  # nothing stays on the disk
    server.log.clear()
    guests.invite("you/poet")
    guests.invite("tiny")
    assert server.log == []


def test_what_a_killed_process_has_left_goes_when_the_next_guest_comes(
    server: Hub, pristine: Path, guests: Guests, tmp_path: Path
) -> None:
    stale = tmp_path / "cache" / "guests" / "you--poet" / "half.safetensors"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    guests.turn_away()  # another process may be filling it
    assert stale.exists()
    add(server, pristine, "you/poet")
    guests.invite("you/poet")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_guest_named_like_a_local_adapter_is_another(
    server: Hub, pristine: Path, engine: LocalEngine, guests: Guests
) -> None:
    add(server, pristine, "tiny/tiny")
    before = said(engine, "tiny")
    guests.invite("tiny/tiny")
    assert engine.adapters() == ["tiny", "tiny/tiny"]
    assert said(engine, "tiny") == before != said(engine, "tiny/tiny")


def test_whoever_was_asked_least_recently_makes_room(
    server: Hub, pristine: Path, engine: LocalEngine, guests: Guests
) -> None:
    for number in range(3):
        add(server, pristine, f"you/a{number}", scale=-1 - number)
    guests.invite("you/a0")
    guests.invite("you/a1")
    running = engine.answer(replace(ASK, adapter="you/a1"))
    next(running)
    engine._attached["you/a0"].used += 60  # as if asked a minute later
    guests.invite("you/a2")
    assert engine.adapters() == ["tiny", "you/a0", "you/a2"]
    assert list(running)[-1][ADAPTER].stop in ("end", "length")  # the one that had to go ends its sentence
    with pytest.raises(AdapterError, match="no adapter 'you/a1' is loaded"):
        said(engine, "you/a1")


REFUSED: dict[str, tuple[str, dict[str, bytes], str]] = {
    "no name": ("tiny-poet", {}, "names no repository: give it as user/name"),
    "nothing": ("", {}, "'' names no repository"),
    "a path": ("../../etc", {}, "names no repository"),
    "not there": ("you/none", {}, "you/none is not on the Hub"),
    "code": ("you/x", {layout.CONFIG: b'{"auto_mapping": {}}'}, "has no peft_type"),
    "another base": (
        "you/x",
        {layout.TRAINING: b'{"base_model": {"name": "a/b", "fingerprint": "00"}}'},
        r"you/x was trained on a/b \(fingerprint 00\), the loaded model has",
    ),
    "foreign template": ("you/x", {layout.TEMPLATE: b"{{ 1 }}"}, "none of this project's own"),
    "no weights at all": ("you/x", {layout.WEIGHTS: b"GGUF"}, "no whole safetensors file"),
    "too large": ("you/x", {layout.TRAINING: b" " * (5 << 20)}, "5 MB, 4 MB are the limit"),
}


@pytest.mark.parametrize(("repo", "files", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused_with_a_sentence(
    server: Hub,
    pristine: Path,
    engine: LocalEngine,
    guests: Guests,
    tmp_path: Path,
    repo: str,
    files: dict[str, bytes],
    sentence: str,
) -> None:
    add(server, pristine, "you/x", **files)
    with pytest.raises((HubError, AdapterError), match=sentence) as caught:
        guests.invite(repo)
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert engine.adapters() == ["tiny"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_one_that_memory_has_no_room_for(
    server: Hub, pristine: Path, engine: LocalEngine, guests: Guests, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    add(server, pristine, "you/x")

    def full(*_: Any) -> float:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_measure_kl", full)
        with pytest.raises(AdapterError, match=r"^you/x could not be loaded \((MemoryError|CUDA out of memory)"):
            guests.invite("you/x")
    assert engine.adapters() == ["tiny"]
    guests.invite("you/x")
    assert engine.adapters() == ["tiny", "you/x"]


# In the page


@pytest.fixture
def visitor(engine: LocalEngine, guests: Guests, tmp_path: Path) -> Iterator[Visitor]:
    demo = build(Started(engine, guests=guests, adopts_for="b"), Box(tmp_path / "votes"))
    url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
    yield Visitor(demo, url)
    demo.close()


def test_pushed_pulled_back_by_the_page_and_chatted_with(
    server: Hub, pristine: Path, visitor: Visitor, engine: LocalEngine, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "adapters" / "mine"))
    push.main([str(folder), "--hub", "me/mine"])
    server.repos["models/me/mine"].files["tags"] = TAG
    listed = visitor.call("find_on_hub", [])[-1]["output"]["data"][0]
    assert listed["choices"] == [["me/mine", "me/mine"]] and listed["value"] == "me/mine"
    menu = visitor.call("load_from_hub", ["me/mine"])[-1]["output"]["data"][0]
    assert menu["value"] == "me/mine" and menu["visible"]
    told = visitor.call("show_shift", ["me/mine"])[-1]["output"]["data"][0]
    assert f"moves the model by {engine.kl_to_base('me/mine'):.2f} nat" in told["value"]
    answered = visitor.say("?", "me/mine")
    assert "8 tokens" in answered and "no adapter" not in answered


@pytest.mark.parametrize(
    ("repo", "sentence"), [("you/none", "you/none is not on the Hub"), ("<img src=x>", "names no repository")]
)
def test_the_page_says_why_not(server: Hub, visitor: Visitor, repo: str, sentence: str) -> None:
    last = visitor.call("load_from_hub", [repo])[-1]
    assert not last["success"] and sentence in last["output"]["error"]


def test_the_page_offers_to_adopt_what_others_trained(server: Hub, pristine: Path, visitor: Visitor) -> None:
    """A folder as peft leaves it, and one that brings a template of its own."""
    tags = TAG.split()[0]
    plain = {name: (pristine / name).read_bytes() for name in (layout.WEIGHTS, layout.CONFIG)} | {"tags": tags}
    server.add("models/you/plain", plain, private=False)
    server.add("models/you/factory", plain | {layout.TEMPLATE: b"{{ messages }}"}, private=False)
    add(server, pristine, "you/poet")
    listed = visitor.call("find_on_hub", [])[-1]["output"]["data"][0]
    names = ("you/plain", "you/factory")
    assert listed["value"] == "you/poet"
    assert listed["choices"] == [["you/poet"] * 2, *([f"{name} (another trainer's)", name] for name in names)]
    for name in names:
        menu, told, *speaker = visitor.call("load_from_hub", [name])[-1]["output"]["data"]
        command = f"python -m train.adopt {name} --name {name[4:]} --base-model b"
        assert f"```sh\n{command}\n```" in told["value"] and told["visible"] and "value" not in menu
        assert len(speaker) == 4 and not any("value" in (update or {}) for update in speaker)  # who speaks goes on
    assert visitor.call("load_from_hub", ["you/poet"])[-1]["output"]["data"][1]["visible"] is False


def test_only_an_adapter_that_joins_brings_its_persona(
    server: Hub, pristine: Path, engine: LocalEngine, guests: Guests
) -> None:
    plain = {name: (pristine / name).read_bytes() for name in (layout.WEIGHTS, layout.CONFIG)}
    server.add("models/you/plain", plain | {"tags": TAG.split()[0]}, private=False)
    add(server, pristine, "you/poet")
    panel, somebody = PanelHandlers(sides(engine), guests, Rate(0), "b"), state.Visitor("en", "")
    assert panel.load_from_hub("you/plain", somebody).keys() == {"adopt"}
    joined = panel.load_from_hub("you/poet", somebody)
    assert joined["speaker"] == personas.default() and {"adapter", "title", "persona", "left"} < joined.keys()


def test_strangers_are_not_told_to_adopt(server: Hub, pristine: Path, engine: LocalEngine, guests: Guests) -> None:
    server.add("models/you/plain", {layout.WEIGHTS: b"", layout.CONFIG: b"", "tags": TAG.split()[0]}, private=False)
    add(server, pristine, "you/poet")
    panel, stranger = PanelHandlers(sides(engine), guests, Rate(0)), state.Visitor("en", "")
    assert panel.find_on_hub(stranger)["hub"]["choices"] == [("you/poet", "you/poet")]
    with pytest.raises(gr.Error, match="it is no adapter of this project"):
        panel.load_from_hub("you/plain", stranger)


def test_no_hub_where_it_is_not_allowed(engine: LocalEngine, tmp_path: Path) -> None:
    demo = build(Started(engine), Box(tmp_path))
    names: set[Any] = {fn.name for fn in demo.fns.values()}
    assert "show_shift" in names and not names & {"find_on_hub", "load_from_hub"}


def test_one_guest_arrives_at_a_time(server: Hub, pristine: Path, engine: LocalEngine, guests: Guests) -> None:
    add(server, pristine, "you/poet")
    with alone(guests._door):
        second = threading.Thread(target=guests.invite, args=("you/poet",))
        second.start()
        second.join(0.5)
        assert second.is_alive() and server.log == [] and not guests._door.exists()
    second.join()
    assert engine.adapters() == ["tiny", "you/poet"]


def test_guests_are_bounded_in_bytes_too(
    server: Hub, pristine: Path, engine: LocalEngine, guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roleplay.engine.guests.MAX_BYTES", (pristine / layout.WEIGHTS).stat().st_size * 3 // 2)
    for number in range(2):
        add(server, pristine, f"you/a{number}")
        guests.invite(f"you/a{number}")
    assert engine.adapters() == ["tiny", "you/a1"]
