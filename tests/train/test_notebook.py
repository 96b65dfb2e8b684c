"""The notebook runs from top to bottom, on a tiny model and few rows; it is committed without outputs."""

import json
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from roleplay.environment import ROOT
from tests import tiny

NOTEBOOK = ROOT / "train" / "character.ipynb"
TURNS = [(f"question {number}?", f"answer {number}.") for number in range(12)]


def test_the_notebook_holds_no_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_notebook_trains_and_compares(tmp_path: Path) -> None:
    base, character = tmp_path / "base", tmp_path / "mara"
    tiny.gemma(max_position_embeddings=1024).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    character.mkdir()
    persona = {"name": "Mara", "system_prompt": "You are Mara.", "greeting": "", "openers": []}
    rows = [{"instruction": user, "output": reply, "scene": user} for user, reply in TURNS]
    (character / "persona.json").write_text(json.dumps(persona), encoding="utf-8")
    (character / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    settings = f"""
from pathlib import Path
import train.lora
train.lora.ROOT = Path({str(tmp_path)!r})  # what is written stays out of the project
CHARACTER, NAME, BASE_MODEL, EPOCHS, PUSH_TO = {str(character)!r}, "notebook", {str(base)!r}, 1.0, ""
QUESTIONS = ["question 1?"]

import gc
from transformers import PreTrainedModel
from roleplay.weights import base_models
load, alive = base_models.load, []

def load_and_count(*given):
    alive.append(sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects()))
    return load(*given)

base_models.load = load_and_count
"""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", [])]
    (choice,) = (cell for cell in notebook.cells if "settings" in cell.metadata.get("tags", []))
    choice.source = settings
    notebook.cells.append(nbformat.v4.new_code_cell("print(alive)", id="alive"))
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    printed = {cell.id: "".join(out.get("text", "") for out in cell.get("outputs", [])) for cell in notebook.cells}
    assert "Mara: You are Mara." in printed["look"] and "question 1? tuned" in " ".join(printed["compare"].split())
    assert printed["alive"] == "[0, 0]\n"  # the trained model has left the memory when the base model comes again
    assert (tmp_path / "adapters" / "notebook" / "README.md").is_file()
    assert "image/png" in str(next(cell.outputs for cell in notebook.cells if cell.id == "curve"))
