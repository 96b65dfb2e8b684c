"""The model card of an adapter folder, in English and Chinese, from what lies in the folder and nothing else.

It reads training.json and, where they exist, training_curve.png and scoreboard.json. Of the scoreboard it needs
`arms` ({arm: {measure: {"value": x, "low": x, "high": x}}}), `samples` ([{"user", "base", "adapter"}], the first three
are shown) and `rule`, a sentence on how the samples were chosen. It knows no hub.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from roleplay.disk import read_json
from roleplay.errors import AdapterError
from roleplay.results import board as scoreboard
from roleplay.weights.layout import BOARD, BOARD_PLOT, CARD, CONFIG, CURVE, TRAINING

VLLM_RANKS = (8, 16, 32, 64, 128, 256)  # the values its --max-lora-rank takes
TAGS = ["lora", "peft", "gemma", "role-play"]
SAMPLES = 3


def write_card(folder: Path) -> Path:
    """Write README.md into an adapter folder; raises `AdapterError` when training.json is missing or incomplete."""
    read = partial(read_json, fault="cannot be read", advice="train the adapter with train.lora", kind=AdapterError)
    training, config = read(folder / TRAINING), read(folder / CONFIG)
    board = read(folder / BOARD) if (folder / BOARD).exists() else {}
    try:
        text = _card(folder, training, board, config["r"])
    except (LookupError, TypeError, AttributeError) as error:
        raise AdapterError(f"{folder}: {TRAINING} or {BOARD} is incomplete ({error!r:.80})") from error
    (folder / CARD).write_text(text, encoding="utf-8")
    return folder / CARD


def metadata(training: Mapping[str, Any]) -> ModelCardData:
    """What the Hub reads of a card: language, licence, library, base model and tags."""
    base = training["base_model"]["name"]
    named = base if base.count("/") == 1 and not base.startswith((".", "/", "~")) else None  # else a folder
    return ModelCardData(
        base_model=named,
        language=["zh", "en"],
        library_name="peft",
        license="gemma",
        pipeline_tag="text-generation",
        tags=TAGS,
    )


def _card(folder: Path, training: Mapping[str, Any], board: Mapping[str, Any], rank: int) -> str:
    base, persona, results = training["base_model"], training["persona"], training["results"]
    name, speaker = folder.name, _line(persona["name"])
    before, after = _figure(results["base_held_out_loss"]), _figure(results["held_out_loss"])
    rows = sum(item["rows"] for item in training["data"])
    data = _table(
        ("file", "rows", "SHA-256"), [(Path(d["file"]).name, d["rows"], f"`{d['sha256']}`") for d in training["data"]]
    )
    settings = _table(("setting", "value"), [(f"`{k}`", f"`{v}`") for k, v in training["settings"].items()])
    losses = _table(
        ("", "held-out loss (nat per token)"),
        [("base model, with the persona", before), ("with this adapter", after)],
    )
    curve = f"![Loss during the training]({CURVE})\n" if (folder / CURVE).exists() else ""
    return f"""---
{metadata(training).to_yaml()}
---

# {name}

A LoRA adapter that makes [{base["name"]}](https://ai.google.dev/gemma) speak as {speaker}. \
It is fiction: the answers are a character's, not advice and not facts.
{_samples(board)}
## Training

{rows:,} rows, of which {training["held_out"]["rows"]:,} were held out; {results["updates"]:,} updates in \
{results["seconds"] / 60:,.0f} minutes. Base model `{base["name"]}`, fingerprint `{base["fingerprint"]}`.

{data}
{losses}
{curve}
<details><summary>All settings</summary>

{settings}
</details>

The persona's system prompt, which belongs to every conversation:

{_quote(persona["system_prompt"])}

{_scoreboard(folder, board)}{_usage(name, training, rank)}
## 中文说明

本仓库是一个 LoRA 适配器，让 Gemma 以“{speaker}”的身份说话。内容纯属虚构，既非建议，亦非事实。

- 基座模型：`{base["name"]}`（指纹 `{base["fingerprint"]}`）
- 训练数据：{rows:,} 条，其中 {training["held_out"]["rows"]:,} 条留作验证
- 验证损失（每词元，奈特）：基座 {before}，加上适配器 {after}
- 用法：把文件夹放进本项目的 `adapters/`，运行 `ADAPTER={name} python app.py`；也可用 peft、vLLM 或 Ollama，见上文
- 对话须以上面的人设提示词开头；`chat_template.jinja` 规定了格式，遇 `<end_of_turn>` 即停
- 许可：遵循 [Gemma 使用条款](https://ai.google.dev/gemma/terms)

## Licence

The base model and this adapter are under the [Gemma terms of use](https://ai.google.dev/gemma/terms).
"""


def _usage(name: str, training: Mapping[str, Any], rank: int) -> str:
    base, template, persona = training["base_model"]["name"], training["template"], training["persona"]["system_prompt"]
    vllm_rank = next(size for size in VLLM_RANKS if size >= rank)
    message = "messages = [{'role': 'system', 'content': persona}, {'role': 'user', 'content': '你是谁？'}]"
    return f"""## Use

The layout of a conversation is `chat_template.jinja` (this project's `{template}` template); a reply ends with
`<end_of_turn>`.

With this project's app, which shows the base model's answer beside it:

```sh
ADAPTER={name} python app.py
```

With peft:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

persona = {persona!r}
{message}
tokenizer = AutoTokenizer.from_pretrained("{base}")
tokenizer.chat_template = open("{name}/chat_template.jinja", encoding="utf-8").read()
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{name}")
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
stop = tokenizer.convert_tokens_to_ids(["<end_of_turn>", "<eos>"])
reply = model.generate(**inputs, max_new_tokens=128, eos_token_id=stop)
print(tokenizer.decode(reply[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

With vLLM, base and adapter side by side under two model names:

```sh
vllm serve {base} --enable-lora --max-lora-rank {vllm_rank} --lora-modules {name}={name} \\
  --chat-template {name}/chat_template.jinja
```

With Ollama, after `python -m train.export adapters/{name}` has merged it:

```sh
ollama create {name} -f exports/{name}/Modelfile && ollama run {name}
```
"""


def _samples(board: Mapping[str, Any]) -> str:
    samples = board.get("samples", [])[:SAMPLES]
    if not samples:
        return ""
    parts = [f"\n## Samples\n\n{board['rule']} Nothing was picked by hand.\n"]
    for sample in samples:
        parts.append(f"**{_line(sample['user'])}**\n")
        parts.append(_table(("base model", "this adapter"), [(_line(sample["base"]), _line(sample["adapter"]))]))
    return "\n".join(parts)


def _scoreboard(folder: Path, board: Mapping[str, Any]) -> str:
    if not board:
        return ""
    head, *rows = scoreboard.table(board)
    plot = f"![The same as a figure]({BOARD_PLOT})\n\n" if (folder / BOARD_PLOT).exists() else ""
    told = "\n".join(f"- {sentence}" for sentence in scoreboard.verdicts(board))
    return f"## Scoreboard\n\nWith 95 % intervals.\n\n{_table(head, rows)}\n{told}\n\n{plot}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in line)} |\n" for line in lines)


def _line(text: str) -> str:
    """A model's text as one line that Markdown and HTML leave as it is."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("*", "\\*"), ("_", "\\_"), ("`", "\\`")):
        text = text.replace(sign, entity)
    return " ".join(text.split())


def _quote(text: str) -> str:
    return "\n".join(f"> {_line(line)}" for line in text.splitlines())
