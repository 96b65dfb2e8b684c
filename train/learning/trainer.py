"""What transformers' `Trainer` needs to learn a character: packed evaluation, checkpoints that are whole or absent,
a stop that can be gone on from, a progress bar. It knows no flags and no files of rows."""

import math
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

from roleplay import heap
from roleplay.disk import read_json, removed_on_failure, write_json
from roleplay.errors import DataError, RoleplayError
from roleplay.text.prompts import Example
from train.learning.fused import fuse
from train.learning.packing import collate, label_losses

KEPT_CHECKPOINTS = 2
RESUME = " and go on with --resume"  # what to do once the disk has room again


def check_resume(run: Path, record: dict[str, Any], resume: bool) -> str | None:
    """The checkpoint to go on from, or None for a new run.

    Raises `RoleplayError` when there is nothing to resume, or something of `record` has changed since.
    """
    checkpoint = get_last_checkpoint(str(run)) if run.is_dir() else None
    if resume and checkpoint is None:
        raise RoleplayError(f"{run} holds no checkpoint to resume from: start without --resume")
    if checkpoint and not resume:
        raise RoleplayError(f"{run} holds an unfinished run: go on with --resume, or remove the folder to start anew")
    if checkpoint is None:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "run.json", record)
        return None
    before = read_json(run / "run.json", advice=f"remove {run} to start anew")
    for key, value in record.items():
        if before.get(key) != value:
            change = f"{key} is {value!r:.80} but was {before.get(key)!r:.80}"
            raise RoleplayError(f"{change} when {checkpoint} was written: set it back, or remove {run} to start anew")
    return checkpoint


class CharacterTrainer(Trainer):
    """Trains on `Example` rows that the collator packs; the model has been through `use_chunked_loss`."""

    def __init__(
        self, model: PeftModel, args: TrainingArguments, share_prefix: bool, lora_plus_ratio: float = 1.0, **kwargs: Any
    ) -> None:
        fuse(model)
        super().__init__(model, args, data_collator=self._collate, **kwargs)
        self.lora = model
        self.share_prefix = share_prefix
        self.lora_plus_ratio = lora_plus_ratio
        self.rows_seen = self.tokens_seen = 0  # by this process, for the progress bar
        heap.return_blocks(heap.ACTIVATIONS)

    def _collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        return {**collate(examples, self.share_prefix), "rows": [example.where for example in examples]}

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW; with LoRA+ the B matrices learn `lora_plus_ratio` times as fast as the A matrices."""
        if self.optimizer is None and self.lora_plus_ratio != 1.0:
            cls, options = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = create_loraplus_optimizer(
                self.lora, cls, loraplus_lr_ratio=self.lora_plus_ratio, loraplus_weight_decay=0.0, **options
            )
        return super().create_optimizer() if model is None else super().create_optimizer(model)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The packed loss; raises `DataError` naming the rows when it is not a finite number."""
        rows = inputs.pop("rows")
        loss: Any = super().compute_loss(model, inputs, *args, **kwargs)
        value = loss.item()
        if not math.isfinite(value):
            raise DataError(
                f"the loss is {value} on {', '.join(rows)}: the last checkpoint is kept; "
                "lower --learning-rate or remove these rows"
            )
        self.rows_seen += len(rows)
        self.tokens_seen += inputs["input_ids"].numel()
        return loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.args.device.type == "cpu":
            heap.trim()
        return loss

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Held-out loss in nat per label, over all labels of all processes."""
        model = self.lora
        loss: Any = model.get_base_model().loss_function
        model.eval()
        total = torch.zeros(2, dtype=torch.float64)  # nat, labels
        for batch in self.get_eval_dataloader():
            batch.pop("rows")
            losses = label_losses(model, loss, self._prepare_inputs(batch))
            total += torch.tensor([losses.double().sum().item(), len(losses)], dtype=torch.float64)
        nat, labels = self.accelerator.reduce(total.to(self.args.device), "sum").tolist()
        model.train()
        metrics = {f"{metric_key_prefix}_loss": nat / labels}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write the checkpoint aside and rename it into place: killed at any instant, it is whole or absent."""
        run = Path(str(self.args.output_dir))
        staging = run / "incomplete"
        with removed_on_failure(staging, run, RESUME):
            self.args.output_dir = str(staging)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = str(run)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            name = f"checkpoint-{self.state.global_step}"
            if not (run / name).exists():
                os.replace(staging / name, run / name)
            shutil.rmtree(staging)
            rotate_checkpoints(output_dir=str(run), save_total_limit=KEPT_CHECKPOINTS)


class StopSignal(TrainerCallback):
    """Ctrl-C and SIGTERM end the run after the update in progress, with a checkpoint."""

    def __init__(self) -> None:
        self.caught = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._catch)

    def _catch(self, *_: Any) -> None:
        self.caught = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends it at once

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.caught:
            control.should_save = control.should_training_stop = True


class ProgressBar(TrainerCallback):
    """One line: updates, ETA, loss, held-out loss, rows and tokens per second."""

    def __init__(self) -> None:
        self.trainer: CharacterTrainer  # set by whoever builds both
        self.seen: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = time.monotonic()
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, unit="update", disable=not state.is_world_process_zero
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        seconds = (time.monotonic() - self.started) / args.world_size
        self.bar.update(state.global_step - self.bar.n)
        speed = {"rows/s": self.trainer.rows_seen / seconds, "tokens/s": self.trainer.tokens_seen / seconds}
        self.bar.set_postfix({**self.seen, **{key: f"{value:.3g}" for key, value in speed.items()}})

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        names = {"loss": "loss", "eval_loss": "held-out"}
        self.seen |= {names[key]: f"{value:.3f}" for key, value in kwargs["logs"].items() if key in names}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar.close()
