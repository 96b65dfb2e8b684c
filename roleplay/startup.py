"""What a server loads when it starts: an engine, every adapter that fits it, and what a vote records of each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import AutoTokenizer

from roleplay import adapters, models
from roleplay.adapters import Adapter
from roleplay.answers import Engine
from roleplay.engine import LocalEngine
from roleplay.errors import AdapterError
from roleplay.persona import ZHEN_HUAN, Persona, parse_persona
from roleplay.remote import RemoteEngine
from roleplay.settings import ROOT, Settings

FOLDER = ROOT / "adapters"


@dataclass(frozen=True)
class Started:
    """An engine ready to answer; `provenance` holds, by adapter, the hashes and the template of its answers."""

    engine: Engine
    provenance: dict[str, dict[str, str]]
    persona: Persona  # that of the adapter that speaks first
    at_once: int  # answers that it may be asked for at the same time


def add_local(engine: LocalEngine | RemoteEngine, wanted: str) -> list[Adapter]:
    """The local adapters that the engine takes, `wanted` first; the others are left out with a printed line.

    Raises `AdapterError` when `wanted` is not there or does not fit.
    """
    if wanted:
        adapters.find(FOLDER, wanted)
    added = []
    for name in sorted(adapters.local_adapters(FOLDER), key=lambda name: name != wanted):
        try:
            adapter = adapters.inspect(adapters.find(FOLDER, name))
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
        "adapter_sha256": hashlib.sha256((adapter.folder / adapters.WEIGHTS).read_bytes()).hexdigest(),
        "template": adapter.template,
    }


def _persona(usable: Sequence[Adapter]) -> Persona:
    """Whom the first adapter was trained to be; Zhen Huan where there is none, or it does not say."""
    told = usable[0].training.get("persona") if usable else None
    return parse_persona(told, f"{usable[0].folder}: {adapters.TRAINING}") if told else ZHEN_HUAN


def start(settings: Settings, base_model: str) -> Started:
    """The engine that the settings ask for: this machine's, or with ENGINE_URL a server's.

    Raises `RoleplayError` when the base model or the adapter that ADAPTER names cannot be used.
    """
    if settings.engine_url:
        folder, _ = models.fetch(models.choose_source(base_model)[0], settings.cache)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        engine: LocalEngine | RemoteEngine = RemoteEngine(settings.engine_url, tokenizer)
    else:
        engine = LocalEngine(models.load(base_model, settings.cache))
    added = add_local(engine, settings.adapter)
    at_once = 8 if settings.engine_url else 1
    return Started(engine, {adapter.name: _provenance(adapter) for adapter in added}, _persona(added), at_once)
