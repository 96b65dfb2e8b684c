"""What happens between updates: a stop that can be gone on from, and a progress bar."""

import signal
import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from train.learning.trainer import CharacterTrainer


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
