"""The model card of an adapter folder, in English and Chinese, from what lies in the folder and nothing else.

It reads training.json and, where they exist, training_curve.png and scoreboard.json. Of the scoreboard it needs
`arms` ({arm: {measure: {"value": x, "low": x, "high": x}}}), `samples` ([{"user", "base", "adapter"}], the first eight
are shown) and `rule`, a sentence on how the samples were chosen. The words are in card.md.jinja; this module only
prepares values. It knows no hub.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import UndefinedError

from roleplay.disk import read_json
from roleplay.environment import ROOT
from roleplay.errors import AdapterError
from roleplay.results import board as scoreboard
from roleplay.results import reading
from roleplay.templates import template
from roleplay.text.languages import language
from roleplay.text.retrieval import NEAREST
from roleplay.weights import embedded
from roleplay.weights.adapters import Adapter, LookedUp
from roleplay.weights.architectures import MULTIMODAL
from roleplay.weights.examples import read_examples
from roleplay.weights.hub import ADAPTER_TAG
from roleplay.weights.layout import BOARD, BOARD_PLOT, CARD, CONFIG, CURVE, NOTICE, TRAINING

VLLM_RANKS = (8, 16, 32, 64, 128, 256)  # the values its --max-lora-rank takes
LOCAL = (".", "/", "~")  # what the path of a folder begins with
TAGS = ["lora", "peft", "gemma", "role-play", ADAPTER_TAG]
SAMPLES = 8
SPOKEN = 0.05  # share of the rows from which on a language counts as one that the adapter speaks
QUESTIONS = {"zh": "你是谁？", "en": "Who are you?"}  # where the persona has no opener


def write_card(folder: Path, hub: str = "", modelscope: str = "") -> Path:
    """Write README.md, and NOTICE, into an adapter folder; its commands name the repositories that it goes to, if any.

    Raises `AdapterError` when training.json is missing or incomplete.
    """
    read = partial(read_json, fault="cannot be read", advice="train the adapter with train.lora", kind=AdapterError)
    training, config = read(folder / TRAINING), read(folder / CONFIG)
    board = read(folder / BOARD) if (folder / BOARD).exists() else {}
    with _incomplete(folder):
        text = _card(folder, training, board, config["r"], (hub, modelscope))
    shutil.copyfile(ROOT / NOTICE, folder / NOTICE)
    (folder / CARD).write_text(text, encoding="utf-8")
    return folder / CARD


@contextmanager
def _incomplete(folder: Path) -> Iterator[None]:
    """What the block lacks in the folder's JSON as one `AdapterError`."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, UndefinedError) as error:
        raise AdapterError(f"{folder}: {TRAINING} or {BOARD} is incomplete ({error!r:.80})") from error


def languages(training: Mapping[str, Any]) -> list[str]:
    """What the rows are in, zh and en, the commoner first; by the openers where an older training did not record it."""
    rows = Counter[str]()
    for file in training["data"]:
        rows.update(file.get("languages", {}))
    rows = rows or Counter(map(language, training["persona"]["openers"]))
    return [name for name, count in rows.most_common() if name in QUESTIONS and count >= SPOKEN * rows.total()]


def metadata(
    training: Mapping[str, Any], relation: str = "adapter", library: str = "peft", tags: Sequence[str] = TAGS
) -> ModelCardData:
    """What the Hub reads of a card: language, licence, library, base model and tags."""
    base = training["base_model"]["name"]
    named = base if base.count("/") == 1 and not base.startswith(LOCAL) else None
    return ModelCardData(
        base_model=named,
        base_model_relation=relation if named else None,
        language=languages(training) or None,
        library_name=library,
        license="gemma",
        pipeline_tag="text-generation",
        tags=list(tags),
    )


def gguf_card(adapter: Adapter, repo: str) -> str:
    """The card of a repository that holds an adapter merged into the embedded base model, as GGUF.

    Raises `AdapterError` when training.json is incomplete.
    """
    training = adapter.training
    with _incomplete(adapter.folder):
        data = metadata(training, "finetune", "gguf", ["gguf", "gemma", "role-play"])
        values = {"base": training["base_model"], "persona": training["persona"], "metadata": data.to_yaml()}
        return template(__file__, "gguf.md.jinja", FILTERS).render(
            name=adapter.name, repo=repo, looks_up=bool(adapter.looked_up.turns), **values
        )


def _card(
    folder: Path, training: Mapping[str, Any], board: Mapping[str, Any], rank: int, repos: tuple[str, str]
) -> str:
    hub, modelscope = repos
    persona, spoken = training["persona"], languages(training)
    return template(__file__, "card.md.jinja", FILTERS).render(
        name=folder.name,
        hub=hub,
        source=hub or (f"modelscope:{modelscope}" if modelscope else folder.name),
        modelscope=modelscope,
        metadata=metadata(training).to_yaml(),
        training=training,
        base=training["base_model"],
        text_half=training["base_model"].get("text_half", False),
        text_names=MULTIMODAL["gemma3"],
        dequantised=training["base_model"]["fingerprint"] == embedded.FINGERPRINT,
        persona=persona,
        question=next(iter(persona["openers"]), QUESTIONS[next(iter(spoken), "en")]),
        chinese="zh" in spoken,
        results=training.get("results", {}),
        stages=training.get("preferences", []),
        examples=LookedUp(read_examples(folder)).shown,
        nearest=NEAREST,
        rows=sum(item["rows"] for item in training["data"]),
        curve=CURVE if (folder / CURVE).exists() else "",
        board=board,
        samples=board.get("samples", [])[:SAMPLES],
        figures=scoreboard.table(board) if board else [],
        verdicts=scoreboard.verdicts(board) if board else [],
        plot=BOARD_PLOT if (folder / BOARD_PLOT).exists() else "",
        reading=reading.table(board["reading"]) if "reading" in board else [],
        reading_sentences=reading.sentences(board["reading"]) if "reading" in board else [],
        vllm_rank=next(size for size in VLLM_RANKS if size >= rank),
    )


def _spent(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes:,} minute{'s' * (minutes > 1)}" if minutes else "less than a minute"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cell(value: object) -> str:
    """Anything as a cell of a table, which it cannot leave; of a path, which is the trainer's own, only the name."""
    return _place(str(value)).replace("|", "&#124;")


def _place(text: str) -> str:
    """A base model as a stranger may have it: of a path on the machine that trained it, only the name."""
    return Path(text).name if text.startswith(LOCAL) else text


def _line(text: str) -> str:
    """A model's text as one line that Markdown and HTML leave as it is."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("*", "\\*"), ("_", "\\_"), ("`", "\\`")):
        text = text.replace(sign, entity)
    return " ".join(text.split())


FILTERS: dict[str, Callable[..., str]] = {
    "line": _line,
    "cell": _cell,
    "loss": _loss,
    "spent": _spent,
    "commas": "{:,.0f}".format,
    "repr": repr,
    "basename": lambda path: Path(path).name,
    "place": _place,
}
