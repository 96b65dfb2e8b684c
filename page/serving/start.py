"""What a server loads when it starts: an engine, every adapter that fits it, and what a vote records of each."""

import os
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from transformers import PreTrainedTokenizerBase

from page.serving import training
from page.serving.loading_page import Tell, say_nothing
from page.serving.training import Trained
from roleplay import heap
from roleplay.engine.guests import Guests
from roleplay.engine.lent_gpu import Lender, ZeroEngine, borrow_nothing
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import Engine
from roleplay.engine.remote import RemoteEngine
from roleplay.environment import LOCAL, ROOT, Environment
from roleplay.errors import DataError, RoleplayError
from roleplay.text import personas
from roleplay.text.known import every_turn
from roleplay.text.personas import Persona, load_persona, parse_persona
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import file_sha256
from roleplay.weights import adapters, base_models, devices, hub, inspection, layout, sources, training_rows
from roleplay.weights.adapters import Adapter
from roleplay.weights.sources import Source

FOLDER = ROOT / "adapters"
BASE_TOKENS = 64  # of an answer by a base model that does not end one: enough to compare, and as long as it is read
REMOTE_AT_ONCE, ZERO_AT_ONCE = 8, 4  # answers at the same time; on this machine half as many as there are rows


@dataclass(frozen=True)
class About:
    """What a page tells of an adapter beside its answers."""

    folder: Path
    provenance: Mapping[str, str] = field(default_factory=dict)  # hashes and template, as a vote records them
    retriever: Retriever | None = None  # over its training rows; None where they are not on this machine
    persona: Persona | None = None  # whom it was trained to be; None where it does not say
    revision: str = ""  # of the repository that it came from, "" for a folder of this machine


@dataclass(frozen=True)
class Started:
    """An engine ready to answer, and what is known of each of its adapters."""

    engine: Engine
    about: dict[str, About] = field(default_factory=dict)
    persona: Persona = field(default_factory=personas.default)  # who speaks where `about` knows of none
    at_once: int = 1  # answers that it may be asked for at the same time
    guests: Guests | None = None  # where adapters from the Hub may join
    command: str = ""  # that makes an adapter for this base model, "" where it is not known
    trained: Trained = field(default_factory=Trained)  # what a training at the start came to
    base_tokens: int = 0  # length of the base side's answers until a visitor chooses; 0 is the adapter side's
    cards: bool = False  # whether visitors may load character cards
    adopts_for: str = ""  # the base model that others' adapters are adopted for; "" where visitors cannot do it


def named_adapters(settings: Environment) -> list[Source]:
    """What ADAPTER names, and ADAPTER_REPO once something is kept there."""
    wanted = sources.parse(settings.adapter)
    if settings.adapter_repo and hub.exists(settings.adapter_repo) is not False:
        wanted += sources.parse(settings.adapter_repo)
    return wanted


def may_train(settings: Environment, lent: bool) -> bool:
    """Whether an adapter may be trained where none fits: not in place of one in ADAPTER, nor of one that ADAPTER_REPO
    may keep when the Hub cannot be asked."""
    if settings.adapter or not training.wanted(settings, lent):
        return False
    return not settings.adapter_repo or hub.exists(settings.adapter_repo) is not None


def add_adapters(
    engine: LocalEngine | RemoteEngine, wanted: Sequence[Source], cache: Path, tell: Tell
) -> list[Adapter]:
    """The adapters that the engine takes: those `wanted` in their order, fetched where they are on a hub, then the
    other local ones, the newest first. What cannot be had or does not fit is left out with a printed line."""
    named = {source.text for source in wanted}
    local = [Source(name) for name in adapters.newest_first(FOLDER) if name not in named]
    added = []
    for source in [*wanted, *local]:
        tell("adapters")
        try:
            if source.repo:
                adapter = sources.fetch(source, cache, lambda progress: tell("download", progress=progress))
            else:
                adapter = inspection.inspect(adapters.find(FOLDER, source.text))
            engine.add(adapter)
            added.append(adapter)
        except RoleplayError as error:
            print(f"left out     {source.text}: {error}")
    if added and not wanted:
        print(f"opens on     {added[0].name}: the newest adapter by the time of its files; ADAPTER names another")
    return added


def _provenance(adapter: Adapter) -> dict[str, str]:
    return {
        "base_model": adapter.base_model,
        "base_fingerprint": adapter.base_fingerprint,
        "adapter_sha256": file_sha256(adapter.folder / layout.WEIGHTS),
        "template": adapter.template,
        **({"examples_sha256": file_sha256(adapter.folder / layout.EXAMPLES)} if adapter.looked_up.turns else {}),
        **({"meaning_sha256": file_sha256(adapter.folder / layout.MEANING)} if adapter.looked_up.meaning else {}),
    }


def _persona(adapter: Adapter) -> Persona | None:
    """Whom it was trained to be, None where it does not say; raises `DataError` for what is no persona."""
    told = adapter.training.get("persona")
    if told and "adopted" in adapter.training and not adapter.persona:
        return Persona(adapter.name, "")  # nobody said what it was told
    return parse_persona(told, f"{adapter.folder}: {layout.TRAINING}") if told else None


def _about(adapter: Adapter, fixed: Persona | None) -> About:
    """All but its rows; `fixed` is who speaks whatever it was trained to be."""
    about = About(adapter.folder, _provenance(adapter), persona=fixed, revision=adapter.revision)
    try:
        return replace(about, persona=fixed or _persona(adapter))
    except DataError as error:
        print(f"persona      not that of {adapter.name}: {error}")
        return about


def _with_rows(about: About, adapter: Adapter) -> About:
    if adapter.retriever:
        return replace(about, retriever=adapter.retriever)
    try:
        training_rows.find_data(adapter)
        return replace(about, retriever=Retriever(lambda: every_turn(training_rows.rows_of(adapter)[0])))
    except DataError as error:
        print(f"retrieval    not offered for {adapter.name}: {error}")
        return about


def _known(usable: Sequence[Adapter], fixed: Persona | None) -> tuple[dict[str, About], Persona]:
    """What is known of each adapter, and who speaks where that is no persona: the first one's, else Zhen Huan."""
    first = fixed or (_persona(usable[0]) if usable else None)
    return {a.name: _with_rows(_about(a, fixed), a) for a in usable}, first or personas.default()


def choose_base_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, str]:
    """How long the base side's answers are at first, and why; 0 is as long as the adapter side's."""
    if tokenizer.chat_template:
        return 0, "its tokenizer has a chat template, so it was taught to end an answer"
    return BASE_TOKENS, "its tokenizer has no chat template, so it was never taught to end an answer"


def _base_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    tokens, reason = choose_base_tokens(tokenizer)
    print(f"base length  {f'at most {tokens} tokens' if tokens else 'that of the adapter'}: {reason}")
    return tokens


def start(settings: Environment, base_model: str, tell: Tell = say_nothing, lender: Lender | None = None) -> Started:
    """The engine that the settings ask for: this machine's, with ENGINE_URL a server's, on ZeroGPU a lent GPU's.

    `tell` hears which stage begins; `lender` is what a ZeroGPU Space lends its GPUs with, None elsewhere. Raises
    `RoleplayError` when PERSONA or the base model cannot be used.
    """
    fixed = load_persona(settings.persona) if settings.persona else None
    if settings.storage:
        training.bring_back(settings.storage)
    wanted = named_adapters(settings)
    if settings.engine_url:
        tell("fetch")
        folder, _ = base_models.fetch(base_models.choose_source(base_model)[0], settings.cache)
        tokenizer = base_models.read_tokenizer(folder)
        remote = RemoteEngine(settings.engine_url, tokenizer, key=settings.engine_key)
        usable = add_adapters(remote, wanted, settings.cache, tell)
        if lender:
            borrow_nothing(lender)
        return Started(remote, *_known(usable, fixed), REMOTE_AT_ONCE, base_tokens=_base_tokens(tokenizer))
    if not lender:  # a lent GPU is not there yet
        devices.check_accelerator(settings.accelerator)
    heap.return_blocks(heap.CACHES)
    base, engine, usable = _load(settings, base_model, wanted, tell)
    trained = Trained()
    if not usable and may_train(settings, bool(lender)):
        name = base.name
        del base, engine  # the training has the memory to itself
        base_models.release()
        trained = training.train(name, settings, tell)
        base, engine, usable = _load(settings, name, [], tell)  # what it made is in adapters/
    about, persona = _known(usable, fixed)
    command = f"python -m train.lora --base-model {shlex.quote(base.name)} --name mine"
    length = _base_tokens(base.tokenizer)
    if lender:  # guests cannot join: what is forked has the weights of the start
        zero = ZeroEngine(engine, lender)
        return Started(zero, about, persona, ZERO_AT_ONCE, None, command, trained, length)

    def arrived(guest: Adapter) -> None:
        about[guest.name] = _about(guest, fixed)

    guests = Guests(engine, base.hub_id, settings.cache, settings.hub_adapters, arrived)
    joining = guests if settings.hub_adapters else None
    adopts_for = base.name if settings.host in LOCAL else ""
    engine.choose_steps()
    engine.choose_at_once(settings.at_once)
    at_once = -(-engine.at_once // 2)
    return Started(engine, about, persona, at_once, joining, command, trained, length, adopts_for=adopts_for)


def _load(
    settings: Environment, base_model: str, wanted: Sequence[Source], tell: Tell
) -> tuple[base_models.BaseModel, LocalEngine, list[Adapter]]:
    base = base_models.load(base_model, settings.cache, settings.dtype, tell=tell)
    engine = LocalEngine(base)
    return base, engine, add_adapters(engine, wanted, settings.cache, tell)


def end_on_signals(last: Callable[[], None]) -> None:
    """Have Ctrl-C and SIGTERM call `last` and end the process, with every answer that it is generating.

    Left to itself, a server waits some seconds for its open connections, and goes on generating for them. Whoever
    handled the signal before is asked after `last`: Gradio ends its Node process so. A process that is forked from
    this one ends without both.
    """
    own = os.getpid()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            last()
            handler = before[signal.Signals(number)]
            if callable(handler):
                with suppress(SystemExit, KeyboardInterrupt):
                    handler(number, frame)
        os._exit(128 + number)

    for number in before:
        signal.signal(number, end)
