"""What happens between updates: sample replies, a stop that can be gone on from, and a progress bar."""

import signal
import time
from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from roleplay.text.personas import Persona
from roleplay.text.prompts import PromptEncoder
from roleplay.text.rows import Row
from train.learning.loss import logits_again
from train.learning.trainer import CharacterTrainer

SAMPLES, SAMPLE_TOKENS = 3, 40  # prompts that are answered at every held-out loss, and the longest reply


def follow(trainer: CharacterTrainer, samples: "SampleReplies") -> "StopSignal":
    """Have a trainer show its progress and its replies, and end after a signal; returns what caught the signal."""
    stop = StopSignal()
    trainer.remove_callback(PrinterCallback)
    for callback in (stop, ProgressBar(trainer), samples):
        trainer.add_callback(callback)
    return stop


def sample_prompts(persona: Persona, held_out: Sequence[Row]) -> list[str]:
    """What is asked while it trains: the persona's first openers, else the first held-out messages."""
    return [*persona.openers, *(row.turns[0][0] for row in held_out)][:SAMPLES]


class SampleReplies(TrainerCallback):
    """Answers a few prompts with the likeliest words at every held-out loss; `replies` has them all, oldest first."""

    def __init__(self, trainer: CharacterTrainer, encoder: PromptEncoder, persona: str, prompts: Sequence[str]) -> None:
        self._trainer, self._encoder, self.prompts = trainer, encoder, prompts
        self._ids = [encoder.prompt(persona, (), prompt) for prompt in prompts]
        self.replies: list[dict[str, Any]] = []  # update, prompt, reply

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero or self._trainer.is_fsdp_enabled:  # a sharded model needs all processes
            return
        said = self._answer()
        self.replies += [
            {"update": state.global_step, "prompt": prompt, "reply": reply}
            for prompt, reply in zip(self.prompts, said, strict=True)
        ]
        for prompt, reply in zip(self.prompts, said, strict=True):
            tqdm.write(f"  {prompt}  →  {reply}")
        if "trackio" in (args.report_to or ()):
            import trackio  # a second to load: only where live curves are asked for

            text = "\n\n".join(f"**{prompt}**  {reply}" for prompt, reply in zip(self.prompts, said, strict=True))
            trackio.log({"sample replies": trackio.Markdown(text)}, step=state.global_step)

    @torch.no_grad()
    def _answer(self) -> list[str]:
        """One greedy reply a prompt, all in one batch padded on the left."""
        model, longest = self._trainer.lora, max(map(len, self._ids))
        ids = torch.tensor([[0] * (longest - len(own)) + own for own in self._ids], device=model.device)
        seen = torch.tensor([[0] * (longest - len(own)) + [1] * len(own) for own in self._ids], device=model.device)
        stop = self._encoder.stop_ids
        greedy = GenerationConfig(
            do_sample=False, max_new_tokens=SAMPLE_TOKENS, eos_token_id=list(stop), pad_token_id=stop[0]
        )
        was_training = model.training
        model.eval()
        base: Any = model.get_base_model()
        with logits_again(base):
            replies = model.generate(input_ids=ids, attention_mask=seen, generation_config=greedy)
        model.train(was_training)
        return [self._encoder.decode(reply[longest:].tolist()).strip() for reply in replies]


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

    def __init__(self, trainer: CharacterTrainer) -> None:
        self.trainer = trainer
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
