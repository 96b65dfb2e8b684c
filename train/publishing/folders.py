"""The adapter folder that a training ends with."""

import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel

from roleplay.disk import write_json, written_whole
from roleplay.text.prompts import TEMPLATES
from roleplay.weights.layout import CURVE, TEMPLATE, TRAINING
from train.learning.adapter import saved_weights
from train.publishing import card, plots


def write_adapter(folder: Path, model: PeftModel, training: dict[str, Any], then: str = "") -> None:
    """Weights, configuration, template, `training` as training.json, curve and card; the folder is whole or absent.

    Raises `RoleplayError` where the disk fails; it says what to do `then`.
    """
    config: Any = model.peft_config["default"]
    config.base_model_name_or_path = training["base_model"]["name"]
    config.target_modules = sorted(config.target_modules)  # a set has another order in every run
    with written_whole(folder, then) as part:
        model.save_pretrained(str(part), save_embedding_layers=False, state_dict=saved_weights(model))
        (part / TEMPLATE).write_text(TEMPLATES[training["template"]], encoding="utf-8")
        write_json(part / TRAINING, training)
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
