"""transformers' `Trainer` for packed rows: the loss, evaluation, checkpoints that are whole or absent."""

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from roleplay import heap
from roleplay.disk import removed_on_failure
from roleplay.errors import DataError
from roleplay.text.prompts import Example
from train.learning.checkpoints import KEPT_CHECKPOINTS, RESUME
from train.learning.fused import fuse
from train.learning.loss import label_losses
from train.learning.packing import collate
from train.learning.rehearsal import Rehearsed, of_update, rehearsal_loss


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
        self._rehearsal, self._rehearsed = 0.0, tuple[Rehearsed, ...]()
        self._rehearsed_for = -1  # the update
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

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """A warm-up ends before the last update: at its rate of zero a run of one would learn nothing."""
        asked: int = self.args.get_warmup_steps(num_training_steps)
        self.args.warmup_steps = max(0, min(asked, num_training_steps - 1))
        return super().create_scheduler(num_training_steps, optimizer)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The packed loss; raises `DataError` naming the rows when it is not a finite number."""
        rows = inputs.pop("rows")
        loss: Any = self.packed_loss(model, inputs, *args, **kwargs)
        value = loss.item()
        if not math.isfinite(value):
            raise DataError(
                f"the loss is {value} on {', '.join(rows)}: the last checkpoint is kept; "
                "lower --learning-rate or remove these rows"
            )
        self.rows_seen += len(rows)
        self.tokens_seen += inputs["input_ids"].numel()
        return loss

    def packed_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """A pack's part of the update's loss: the cross-entropy of its labels."""
        return super().compute_loss(model, inputs, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self._rehearsed and self._rehearsed_for != self.state.global_step:
            self._begin_with_rehearsal()
        loss = super().training_step(*args, **kwargs)
        if self.args.device.type == "cpu":
            heap.trim()
        return loss

    def rehearse(self, weight: float, texts: Sequence[Rehearsed]) -> None:
        """Rehearse `texts` beside the rows; their loss counts `weight` times that of the rows."""
        self._rehearsal, self._rehearsed = weight, tuple(texts)

    def _begin_with_rehearsal(self) -> None:
        """Begin an update with the gradient of its rehearsed texts.

        It comes before the rows', whose backward pass is the one that several processes share their gradients in.
        """
        self._rehearsed_for = self.state.global_step
        self.lora.train()
        with self.compute_loss_context_manager():
            texts = of_update(self._rehearsed, self._rehearsed_for)
            loss = rehearsal_loss(self.lora, texts, self.share_prefix)
            (self._rehearsal * loss).backward()

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
        return self.report({f"{metric_key_prefix}_loss": nat / labels})

    def report(self, metrics: dict[str, float]) -> dict[str, float]:
        """Log what was measured on held-out rows, and tell the callbacks."""
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def results(self, result: TrainOutput) -> dict[str, Any]:
        """What training.json records of a run that ended with `result`; the held-out loss was computed last."""
        entries: list[dict[str, Any]] = self.state.log_history
        log = [entry for entry in entries if "samples" not in entry]
        held_out = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
        return {
            "updates": self.state.global_step,
            "seconds": round(result.metrics["train_runtime"], 1),
            "train_loss": result.training_loss,
            "base_held_out_loss": held_out[0],
            "held_out_loss": held_out[-1],
            "log": [{key: float(f"{value:.6g}") for key, value in entry.items()} for entry in log],
            "samples": [sample for entry in entries for sample in entry.get("samples", ())],
        }

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
