"""What a server loads when it starts: an engine, every adapter that fits it, and what a vote records of each."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoTokenizer

from roleplay import heap
from roleplay.engine.guests import Guests
from roleplay.engine.lent_gpu import Lender, ZeroEngine
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import Engine
from roleplay.engine.remote import RemoteEngine
from roleplay.environment import ROOT, Environment
from roleplay.errors import AdapterError, DataError
from roleplay.loading import Tell
from roleplay.text import personas
from roleplay.text.personas import Persona, parse_persona
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import file_sha256
from roleplay.weights import adapters, base_models, inspection, layout, training_rows
from roleplay.weights.adapters import Adapter

FOLDER = ROOT / "adapters"
REMOTE_AT_ONCE, ZERO_AT_ONCE = 8, 4  # answers at the same time; on this machine one comes after the other


@dataclass(frozen=True)
class About:
    """What a page tells of an adapter beside its answers."""

    folder: Path
    provenance: Mapping[str, str] = field(default_factory=dict)  # hashes and template, as a vote records them
    retriever: Retriever | None = None  # over its training rows; None where they are not on this machine


@dataclass(frozen=True)
class Started:
    """An engine ready to answer, and what is known of each of its adapters."""

    engine: Engine
    about: dict[str, About]
    persona: Persona  # that of the adapter that speaks first
    at_once: int  # answers that it may be asked for at the same time
    guests: Guests | None = None  # where adapters from the Hub may join


def add_local(engine: LocalEngine | RemoteEngine, wanted: str) -> list[Adapter]:
    """The local adapters that the engine takes, `wanted` first; the others are left out with a printed line.

    Raises `AdapterError` when `wanted` is not there or does not fit.
    """
    if wanted:
        adapters.find(FOLDER, wanted)
    added = []
    for name in sorted(adapters.local_adapters(FOLDER), key=lambda name: name != wanted):
        try:
            adapter = inspection.inspect(adapters.find(FOLDER, name))
            engine.add(adapter)
            added.append(adapter)
        except AdapterError as error:
            if name == wanted:
                raise
            print(f"left out     {name}: {error}")
    return added


def _provenance(adapter: Adapter) -> dict[str, str]:
    return {
        "base_model": adapter.base_model,
        "base_fingerprint": adapter.base_fingerprint,
        "adapter_sha256": file_sha256(adapter.folder / layout.WEIGHTS),
        "template": adapter.template,
    }


def _about(adapter: Adapter) -> About:
    try:
        retriever = Retriever(training_rows.rows_of(adapter)[0])
    except DataError as error:
        retriever = None
        print(f"retrieval    not offered for {adapter.name}: {error}")
    return About(adapter.folder, _provenance(adapter), retriever)


def _persona(usable: Sequence[Adapter]) -> Persona:
    """Whom the first adapter was trained to be; Zhen Huan where there is none, or it does not say."""
    told = usable[0].training.get("persona") if usable else None
    return parse_persona(told, f"{usable[0].folder}: {layout.TRAINING}") if told else personas.default()


def start(
    settings: Environment, base_model: str, tell: Tell = lambda stage: None, lender: Lender | None = None
) -> Started:
    """The engine that the settings ask for: this machine's, with ENGINE_URL a server's, on ZeroGPU a lent GPU's.

    `tell` hears which stage begins; `lender` is what a ZeroGPU Space lends its GPUs with, None elsewhere. Raises
    `RoleplayError` when the base model or the adapter that ADAPTER names cannot be used.
    """
    if settings.engine_url:
        tell("fetch")
        folder, _ = base_models.fetch(base_models.choose_source(base_model)[0], settings.cache)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        remote = RemoteEngine(settings.engine_url, tokenizer, key=settings.engine_key)
        added = add_local(remote, settings.adapter)
        return Started(remote, {a.name: _about(a) for a in added}, _persona(added), REMOTE_AT_ONCE)
    heap.return_blocks(heap.CACHES)
    base = base_models.load(base_model, settings.cache, tell=tell)
    tell("adapters")
    engine = LocalEngine(base)
    added = add_local(engine, settings.adapter)
    about = {a.name: _about(a) for a in added}
    if lender:  # guests cannot join: what is forked has the weights of the start
        return Started(ZeroEngine(engine, *lender), about, _persona(added), ZERO_AT_ONCE)

    def arrived(guest: Adapter) -> None:
        about[guest.name] = About(guest.folder, _provenance(guest))

    guests = Guests(engine, base.hub_id, settings.cache, settings.hub_adapters, arrived)
    return Started(engine, about, _persona(added), 1, guests if settings.hub_adapters else None)


def end_on_signals(last: Callable[[], None]) -> None:
    """Have Ctrl-C and SIGTERM call `last` and end the process, with every answer that it is generating.

    Left to itself, a server waits some seconds for its open connections, and goes on generating for them. A process
    that is forked from this one ends without `last`.
    """
    own = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() == own:
            last()
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
