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
        usable = usable_adapters(None, settings.adapter)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        engine: Engine = RemoteEngine(settings.engine_url, tokenizer, usable)
        return Started(engine, {adapter.name: _provenance(adapter) for adapter in usable}, _persona(usable), 8)
    base = models.load(base_model, settings.cache)
    usable = usable_adapters(base, settings.adapter)
    provenance = {adapter.name: _provenance(adapter) for adapter in usable}
    return Started(LocalEngine(base, usable), provenance, _persona(usable), 1)
