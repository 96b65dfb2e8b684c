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

from roleplay.text.prompts import PromptEncoder
from roleplay.text.rows import Row
from train.learning.loss import logits_again
from train.learning.trainer import CharacterTrainer

SAMPLES, SAMPLE_TOKENS = 3, 40  # prompts that are answered at every held-out loss, and the longest reply
LAST_SAMPLES, LAST_TOKENS = 8, 96  # the same when a run ends


def follow(trainer: CharacterTrainer, samples: "SampleReplies") -> "StopSignal":
    """Have a trainer show its progress and its replies, and end after a signal; returns what caught the signal."""
    stop = StopSignal()
    trainer.remove_callback(PrinterCallback)
    for callback in (stop, ProgressBar(trainer), samples):
        trainer.add_callback(callback)
    return stop


def sample_prompts(openers: Sequence[str], held_out: Sequence[Row]) -> list[str]:
    """What is asked while it trains and when it ends: a persona's openers, then the first held-out messages."""
    return list(dict.fromkeys([*openers, *(row.turns[0][0] for row in held_out)]))[:LAST_SAMPLES]


class SampleReplies(TrainerCallback):
    """Answers the first `SAMPLES` prompts with the likeliest words at every held-out loss, and all when a run ends.

    The replies stand in the trainer's log under "samples", so that a run that goes on keeps them.
    """

    def __init__(self, trainer: CharacterTrainer, encoder: PromptEncoder, persona: str, prompts: Sequence[str]) -> None:
        self._trainer, self._encoder, self.prompts = trainer, encoder, prompts
        self._ids = [encoder.prompt(persona, (), prompt) for prompt in prompts]

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero or self._trainer.is_fsdp_enabled:  # a sharded model needs all processes
            return
        said = self._answer(SAMPLES, SAMPLE_TOKENS)
        replies = [{"update": state.global_step, "prompt": prompt, "reply": reply} for prompt, reply, _ in said]
        log: list[dict[str, Any]] = state.log_history
        log.append({"samples": replies, "step": state.global_step})
        for prompt, reply, _ in said:
            tqdm.write(f"  {prompt}  →  {reply}")
        if "trackio" in (args.report_to or ()):
            import trackio  # a second to load: only where live curves are asked for

            text = "\n\n".join(f"**{prompt}**  {reply}" for prompt, reply, _ in said)
            trackio.log({"sample replies": trackio.Markdown(text)}, step=state.global_step)

    def last(self) -> list[dict[str, Any]]:
        """`prompt`, `reply` and whether it `ended` by itself within `LAST_TOKENS`, for every prompt."""
        said = self._answer(LAST_SAMPLES, LAST_TOKENS)
        return [{"prompt": prompt, "reply": reply, "ended": ended} for prompt, reply, ended in said]

    @torch.no_grad()
    def _answer(self, count: int, tokens: int) -> list[tuple[str, str, bool]]:
        """Prompt, greedy reply, and whether it ended, of the first `count` prompts in a batch padded on the left."""
        model, prompts = self._trainer.lora, self._ids[:count]
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(own)) + own for own in prompts], device=model.device)
        seen = torch.tensor([[0] * (longest - len(own)) + [1] * len(own) for own in prompts], device=model.device)
        stop = self._encoder.stop_ids
        greedy = GenerationConfig(do_sample=False, max_new_tokens=tokens, eos_token_id=list(stop), pad_token_id=stop[0])
        was_training = model.training
        model.eval()
        base: Any = model.get_base_model()
        with logits_again(base):
            replies = model.generate(input_ids=ids, attention_mask=seen, generation_config=greedy)
        model.train(was_training)
        said = [reply[longest:].tolist() for reply in replies]
        return [
            (prompt, self._encoder.decode(reply).strip(), not set(stop).isdisjoint(reply))
            for prompt, reply in zip(self.prompts, said, strict=False)
        ]


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
    """One line: updates, ETA, loss, what is measured on held-out rows, rows and tokens per second."""

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
        names = {"loss": "loss", "eval_loss": "held-out", "eval_margin": "margin"}
        names |= {"eval_reward_gap": "reward gap", "eval_accuracy": "accuracy"}
        self.seen |= {names[key]: f"{value:.3f}" for key, value in kwargs["logs"].items() if key in names}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar.close()
