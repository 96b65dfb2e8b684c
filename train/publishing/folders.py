"""The adapter folder that a training ends with, and the one that an adoption does."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from safetensors.torch import save_file

from roleplay.adoption.matrices import Plain
from roleplay.disk import write_json, written_whole
from roleplay.text.prompts import TEMPLATES
from roleplay.weights.adapters import NOTHING, Adapter, LookedUp
from roleplay.weights.examples import write_examples
from roleplay.weights.layout import CURVE, EXAMPLES, MEANING, TEMPLATE, TRAINING, WEIGHTS
from roleplay.weights.meanings import write_meaning
from train.learning.adapter import saved_weights
from train.publishing import card, plots
from train.publishing.upload import push_where_asked


def write_adapter(
    folder: Path, model: PeftModel, training: dict[str, Any], then: str = "", looked_up: LookedUp = NOTHING
) -> None:
    """Weights, configuration, template, `training` as training.json, the rows that it looks up, curve and card; the
    folder is whole or absent.

    Raises `RoleplayError` where the disk fails; it says what to do `then`.
    """
    config: Any = model.peft_config["default"]
    config.base_model_name_or_path = training["base_model"]["name"]
    config.target_modules = sorted(config.target_modules)  # a set has another order in every run
    with written_whole(folder, then) as part:
        model.save_pretrained(str(part), save_embedding_layers=False, state_dict=saved_weights(model))
        (part / TEMPLATE).write_text(TEMPLATES[training["template"]], encoding="utf-8")
        write_json(part / TRAINING, training)
        _write_looked_up(part, looked_up)
        plots.training_curve(training["results"]["log"], part / CURVE)
        card.write_card(part)


def name_adapter(staged: Path, folder: Path, training: dict[str, Any], then: str = "") -> None:
    """Copy an adapter that `write_adapter` has staged to where it is found by its name, with a new training.json.

    Raises `RoleplayError` where the disk fails; it says what to do `then`.
    """
    with written_whole(folder, then) as part:
        shutil.copytree(staged, part, dirs_exist_ok=True)
        write_json(part / TRAINING, training)
        card.write_card(part)


def write_looked_up(adapter: Adapter, looked_up: LookedUp, files: list[dict[str, Any]]) -> None:
    """The same adapter with other rows to look up, which are from these files; raises `RoleplayError` where the disk
    fails."""
    with written_whole(adapter.folder) as part:
        shutil.copytree(adapter.folder, part, dirs_exist_ok=True)
        _write_looked_up(part, looked_up)
        write_json(part / TRAINING, adapter.training | {"looked_up": files})
        card.write_card(part)


def _write_looked_up(folder: Path, looked_up: LookedUp) -> None:
    for file in (EXAMPLES, MEANING):
        (folder / file).unlink(missing_ok=True)
    if looked_up.turns:
        write_examples(folder, looked_up.turns)
    if looked_up.meaning:
        write_meaning(folder, looked_up.meaning)


def publish(folder: Path, hub: str, modelscope: str) -> None:
    """Push an adapter to the hubs that are named, its card's commands with where it goes; nothing where none is."""
    if hub or modelscope:
        card.write_card(folder, hub, modelscope)
        push_where_asked(folder, hub, modelscope)


@contextmanager
def written_adopted(folder: Path, plain: Plain, training: dict[str, Any]) -> Iterator[Path]:
    """Weights, configuration, template, training.json and card of an adopted adapter, aside; they take their place
    when the block has looked at them. Raises `RoleplayError` where the disk fails."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=training["base_model"]["name"],
        inference_mode=True,
        r=plain.rank,
        lora_alpha=plain.alpha,  # type: ignore[arg-type]  # peft takes a float too
        use_rslora=plain.rslora,
        target_modules=plain.projections,
    )
    with written_whole(folder) as part:
        config.target_modules = plain.projections  # a set has another order in every run
        config.save_pretrained(str(part))
        save_file(plain.tensors, part / WEIGHTS, {"format": "pt"})
        (part / TEMPLATE).write_text(TEMPLATES[training["template"]], encoding="utf-8")
        write_json(part / TRAINING, training)
        card.write_card(part)
        yield part
