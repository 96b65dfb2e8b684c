"""Folders that are whole or absent, whatever the disk does meanwhile: a checkpoint's, an adapter's, an export's."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError

from roleplay import card, plots
from roleplay.adapters import TEMPLATE, TRAINING
from roleplay.errors import RoleplayError, first_line
from roleplay.text.prompts import TEMPLATES

RESUME = " and go on with --resume"


def check_writable(folder: Path) -> None:
    """Raises `RoleplayError` for a folder that cannot be written to, before a run that would end there."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(1 << 20))  # an empty file fits on a full disk
    except OSError as error:
        raise RoleplayError(
            f"cannot write to {folder} ({error.strerror}): mend its permissions, or free some disk"
        ) from error


@contextmanager
def whole_or_absent(staging: Path, folder: Path, then: str = "") -> Iterator[None]:
    """What the block writes into `staging` is removed where the disk fails; `RoleplayError` says what to do, `then`."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:  # a full disk, as Python, safetensors or torch say it
        shutil.rmtree(staging, ignore_errors=True)
        raise RoleplayError(f"cannot write {folder} ({first_line(error)}): free some disk{then}") from error


def write_adapter(folder: Path, model: PeftModel, template: str, training: dict[str, Any]) -> None:
    """The whole adapter folder, built aside and renamed into place; raises `RoleplayError` where that fails."""
    staging = folder.with_name(f".{folder.name}.part")
    part = staging / folder.name  # the card says the folder's name
    shutil.rmtree(staging, ignore_errors=True)
    config: Any = model.peft_config["default"]
    config.base_model_name_or_path = training["base_model"]["name"]
    config.target_modules = sorted(config.target_modules)  # a set has another order in every run
    with whole_or_absent(staging, folder, RESUME):
        model.save_pretrained(str(part), save_embedding_layers=False)
        (part / TEMPLATE).write_text(TEMPLATES[template], encoding="utf-8")
        (part / TRAINING).write_text(json.dumps(training, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        plots.training_curve(training["results"]["log"], part / plots.CURVE)
        card.write_card(part)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
        shutil.rmtree(staging)
