"""What a server loads when it starts: an engine, every adapter that fits it, and what a vote records of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoTokenizer

from roleplay import adapters, corpus, models
from roleplay.adapters import Adapter
from roleplay.answers import Engine
from roleplay.engine import LocalEngine
from roleplay.errors import AdapterError, DataError
from roleplay.instructions import file_sha256
from roleplay.loading import Tell
from roleplay.persona import ZHEN_HUAN, Persona, parse_persona
from roleplay.remote import RemoteEngine
from roleplay.retrieval import Retriever
from roleplay.settings import ROOT, Settings

FOLDER = ROOT / "adapters"


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


def usable_adapters(base: models.BaseModel | None, wanted: str) -> list[Adapter]:
    """The local adapters, `wanted` first; those that do not fit are left out with a printed line.

    Raises `AdapterError` when `wanted` is not there or does not fit.
    """
    if wanted:
        adapters.find(FOLDER, wanted)
    usable, print_of_base = [], models.fingerprint(base.model) if base else ""
    for name in sorted(adapters.local_adapters(FOLDER), key=lambda name: name != wanted):
        try:
            adapter = adapters.inspect(adapters.find(FOLDER, name))
            if base:
                adapters.check_base(adapter, base.model, print_of_base, base.hub_id)
            usable.append(adapter)
        except AdapterError as error:
            if name == wanted:
                raise
            print(f"left out     {name}: {error}")
    return usable


def _about(adapter: Adapter) -> About:
    provenance = {
        "base_model": adapter.base_model,
        "base_fingerprint": adapter.base_fingerprint,
        "adapter_sha256": file_sha256(adapter.folder / adapters.WEIGHTS),
        "template": adapter.template,
    }
    try:
        retriever = Retriever(corpus.rows_of(adapter)[0])
    except DataError as error:
        retriever = None
        print(f"retrieval    not offered for {adapter.name}: {error}")
    return About(adapter.folder, provenance, retriever)


def _persona(usable: Sequence[Adapter]) -> Persona:
    """Whom the first adapter was trained to be; Zhen Huan where there is none, or it does not say."""
    told = usable[0].training.get("persona") if usable else None
    return parse_persona(told, f"{usable[0].folder}: {adapters.TRAINING}") if told else ZHEN_HUAN


def start(settings: Settings, base_model: str, tell: Tell = lambda stage: None) -> Started:
    """The engine that the settings ask for: this machine's, or with ENGINE_URL a server's.

    `tell` hears which stage begins. Raises `RoleplayError` when the base model or the adapter that ADAPTER names cannot
    be used.
    """
    if settings.engine_url:
        tell("fetch")
        folder, _ = models.fetch(models.choose_source(base_model)[0], settings.cache)
        usable = usable_adapters(None, settings.adapter)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        engine: Engine = RemoteEngine(settings.engine_url, tokenizer, usable)
        at_once = 8
    else:
        base = models.load(base_model, settings.cache, tell=tell)
        tell("adapters")
        usable = usable_adapters(base, settings.adapter)
        engine, at_once = LocalEngine(base, usable), 1
    return Started(engine, {adapter.name: _about(adapter) for adapter in usable}, _persona(usable), at_once)
