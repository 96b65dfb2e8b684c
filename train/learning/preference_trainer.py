"""The trainer of packed pairs: what `CharacterTrainer` does, with a preference in place of the cross-entropy."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainingArguments
from transformers.trainer_utils import TrainOutput

from train.learning.preference import (
    CHOSEN,
    REJECTED,
    EncodedPair,
    EncodedThumb,
    Objective,
    collate_pairs,
    collate_thumbs,
    lengths,
    log_likelihoods,
    references,
    score,
)
from train.learning.trainer import CharacterTrainer


class PreferenceTrainer(CharacterTrainer):
    """Trains on `EncodedPair` rows that have their reference; the model has been through `use_chunked_loss`."""

    def __init__(
        self, model: PeftModel, args: TrainingArguments, share_prefix: bool, objective: Objective, **kwargs: Any
    ) -> None:
        super().__init__(model, args, share_prefix, **kwargs)
        self.objective: Objective = objective
        self.held_out_scores = torch.zeros(0, 2)  # log-likelihoods at the last evaluation

    def _collate(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:  # type: ignore[override]
        return {**collate_pairs(pairs, self.share_prefix), "rows": [pair.chosen.where for pair in pairs]}

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Of the whole update: (pairs, labels of their chosen replies)."""
        counts = torch.zeros(2, dtype=torch.long)
        for batch in batch_samples:
            counts += torch.stack((torch.tensor(len(batch["lengths"])), batch["lengths"][:, CHOSEN].sum().cpu()))
        return self.accelerator.reduce(counts.to(device), "sum")

    def packed_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """A pack's part of the update's mean over pairs, and of the mean over the chosen replies' tokens."""
        pairs, labels = kwargs["num_items_in_batch"]
        criterion: Any = self.lora.get_base_model().loss_function
        likelihoods = log_likelihoods(model, criterion, inputs)
        loss = self.objective.per_pair(likelihoods - inputs["reference"], inputs["lengths"]).sum() / pairs
        if self.objective.sft_weight:
            loss = loss - self.objective.sft_weight * likelihoods[:, CHOSEN].sum() / labels
        return loss * self.accelerator.num_processes  # which average their gradients

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Means over the held-out pairs: the loss, how much likelier the chosen reply is (`margin`, nat), beta times
        what it gained (`reward_gap`), and the share that gained (`accuracy`)."""
        pairs: Any = self.eval_dataset
        self.held_out_scores = score(self.lora, pairs, self.args.per_device_eval_batch_size, self.share_prefix)
        gains = self.held_out_scores - references(pairs)
        margins = self.objective.margins(gains)
        found = {
            "loss": self.objective.per_pair(gains, lengths(pairs)).mean(),
            "margin": (self.held_out_scores[:, CHOSEN] - self.held_out_scores[:, REJECTED]).mean(),
            "reward_gap": margins.mean(),
            "accuracy": (margins > 0).float().mean(),
        }
        return self.report({f"{metric_key_prefix}_{name}": value.item() for name, value in found.items()})

    def results(self, result: TrainOutput) -> dict[str, Any]:
        """As a training's, with the held-out pairs' margin, reward gap and accuracy."""
        found = super().results(result)
        last = next(entry for entry in reversed(found["log"]) if "eval_margin" in entry)
        return found | {name: last[f"eval_{name}"] for name in ("margin", "reward_gap", "accuracy")}


class ThumbTrainer(PreferenceTrainer):
    """Trains on `EncodedThumb` rows that have their reference, by KTO; what is held out are pairs."""

    def _collate(self, thumbs: Sequence[EncodedThumb]) -> dict[str, Any]:  # type: ignore[override]
        return {**collate_thumbs(thumbs, self.share_prefix), "rows": [thumb.chosen.where for thumb in thumbs]}

    @torch.no_grad()
    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Of the whole update: (thumbs, labels of the liked replies, z)."""
        criterion: Any = self.lora.get_base_model().loss_function
        sums = torch.zeros(3, device=device)
        for batch in batch_samples:
            others = self._prepare_inputs(batch["others"])
            with self.compute_loss_context_manager():
                gains = log_likelihoods(self.lora, criterion, others) - others["reference"]
            labels = batch["lengths"][batch["liked"]].sum()
            sums += torch.stack((torch.tensor(float(len(gains)), device=device), labels.to(device), gains.sum()))
        thumbs, labels, gain = self.accelerator.reduce(sums, "sum")
        return torch.stack((thumbs, labels.clamp(min=1), (gain / thumbs).clamp(min=0)))

    def packed_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """A pack's part of the update's mean over thumbs, and of the mean over the liked replies' tokens."""
        thumbs, labels, z = kwargs["num_items_in_batch"]
        criterion: Any = self.lora.get_base_model().loss_function
        likelihoods, liked = log_likelihoods(model, criterion, inputs), inputs["liked"]
        loss = self.objective.per_thumb(likelihoods - inputs["reference"], liked, z).sum() / thumbs
        if self.objective.sft_weight:
            loss = loss - self.objective.sft_weight * likelihoods[liked].sum() / labels
        return loss * self.accelerator.num_processes  # which average their gradients
