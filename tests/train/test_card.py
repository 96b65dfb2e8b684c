"""The model card: what the Hub reads of it, what people read in it, and what it never becomes."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from roleplay.errors import AdapterError
from roleplay.weights import architectures, embedded, inspection, layout
from tests import tiny
from tests.vllm.run import flags_on_card
from train.publishing import card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.adapter(tmp_path / "tiny")


def test_card_metadata_is_what_the_hub_reads(folder: Path) -> None:
    data = ModelCard.load(folder / "README.md").data.to_dict()
    assert data == {
        "base_model": "google/gemma-3-270m",
        "base_model_relation": "adapter",
        "language": ["zh", "en"],
        "library_name": "peft",
        "license": "gemma",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "peft", "gemma", "role-play", "roleplay-adapter"],
    }


def test_card_tells_what_the_folder_holds(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("ab" * 32, "| `learning_rate` | `0.0004` |", "5.634", "4.031", "training_curve.png", "## 中文说明"):
        assert part in text
    assert "| held-out loss | 5.63" in text and "The adapter against base: better: held-out loss" in text
    assert "scoreboard.png" in text and "The first three rows of the held-out part." in text
    assert "**问7**" in text and "问8" not in text
    for use in ("python app.py", "PeftModel.from_pretrained", "--lora-modules tiny=tiny", "ollama create tiny"):
        assert use in text
    assert "--max-lora-rank 8 " in text


def test_the_vllm_that_make_test_vllm_starts_is_the_one_on_the_card(folder: Path) -> None:
    flags = flags_on_card(inspection.inspect(folder))
    assert flags[:5] == ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", "tiny=tiny"]
    assert flags[5:] == ["--chat-template", "tiny/chat_template.jinja"] and (folder.parent / flags[6]).is_file()
    assert "`--max-loras 2`" in (folder / layout.CARD).read_text(encoding="utf-8")


TO = ("tiny", "adapters/tiny")  # for vLLM, and for train.export
PUSHED = {
    ("me/poet", ""): (
        "ADAPTER=me/poet python",
        ', "me/poet"\n',
        *(f"hf download me/poet --local-dir {to}\n" for to in TO),
    ),
    ("", "me/poet"): (
        *("ADAPTER=modelscope:me/poet python", 'snapshot_download("me/poet")\n'),
        *(f"modelscope download me/poet --local-dir {to}\n" for to in TO),
    ),
    ("me/poet", "you/poet"): ("ADAPTER=me/poet", "`ADAPTER=modelscope:you/poet`", 'hf_hub_download("me/poet", "chat_'),
}


@pytest.mark.parametrize("repos", PUSHED)
def test_card_names_where_it_was_pushed_to(folder: Path, repos: tuple[str, str]) -> None:
    text = card.write_card(folder, *repos).read_text(encoding="utf-8")
    assert [part for part in PUSHED[repos] if part not in text] == []
    assert "ADAPTER=tiny" not in text and "放进" not in text
    compile(text.split("```python\n")[1].split("```")[0], "card", "exec")


def test_the_card_of_a_lighthouse_keeper_speaks_of_him(folder: Path) -> None:
    training = tiny.training()
    training["persona"] |= {"name": "Amos Pascoe", "system_prompt": "You are Amos.", "openers": ["What's for supper?"]}
    training["data"] = [{"file": "rows.json", "sha256": "ab" * 32, "rows": 84, "languages": {"en": 82, "zh": 2}}]
    training["base_model"] |= {"name": "/home/amos/models/gemma"}
    training["settings"] |= {"base_model": "/home/amos/models/gemma"}
    training["results"] |= {"seconds": 61, "updates": 1}
    (folder / layout.TRAINING).write_text(json.dumps(training), encoding="utf-8")
    (folder / layout.BOARD).unlink()
    text = card.write_card(folder).read_text(encoding="utf-8")
    assert ModelCard(text).data.language == ["en"]
    assert "1 update in 1 minute." in text and "'content': \"What's for supper?\"" in text
    assert "/home/amos" not in text and 'AutoModelForCausalLM.from_pretrained("gemma")' in text
    assert not re.search("[\u4e00-\u9fff]", text)


@pytest.mark.parametrize(
    ("seconds", "said"), [(20, "less than a minute"), (90, "2 minutes"), (61 * 60, "61 minutes"), (60, "1 minute")]
)
def test_minutes_are_said_as_people_do(folder: Path, seconds: int, said: str) -> None:
    training = tiny.training()
    training["results"] |= {"seconds": seconds}
    (folder / layout.TRAINING).write_text(json.dumps(training), encoding="utf-8")
    assert f"100 updates in {said}." in card.write_card(folder).read_text(encoding="utf-8")


def test_the_terms_go_with_the_card(folder: Path) -> None:
    assert "subject to the Gemma Terms of Use" in (folder / layout.NOTICE).read_text(encoding="utf-8")


def test_a_card_says_that_the_base_was_dequantised(folder: Path) -> None:
    assert "dequantised" not in (folder / "README.md").read_text(encoding="utf-8")
    training = json.loads((folder / layout.TRAINING).read_text(encoding="utf-8"))
    training["base_model"]["fingerprint"] = embedded.FINGERPRINT
    (folder / layout.TRAINING).write_text(json.dumps(training), encoding="utf-8")
    assert "dequantised from Q4_K_M" in card.write_card(folder).read_text(encoding="utf-8")


def test_a_card_loads_the_text_half_that_was_tuned(folder: Path) -> None:
    training = tiny.training()
    training["base_model"] |= {"name": "google/gemma-3-4b-it", "text_half": True}
    (folder / layout.TRAINING).write_text(json.dumps(training), encoding="utf-8")
    text = card.write_card(folder).read_text(encoding="utf-8")
    snippet = text.split("```python\n")[1].split("```")[0]
    compile(snippet, "card", "exec")
    assert f"names = {architectures.MULTIMODAL['gemma3']}" in snippet and "config=text, key_mapping=names" in snippet
    assert "--enable-lora" not in text and "sh exports/tiny/vllm.sh" in text


def test_card_lets_no_reply_become_markup(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "| &lt;b>a&#124;b&lt;/b> again | 本宫\\*知道\\*了 |" in text


def test_peft_lines_of_the_card_are_python(folder: Path) -> None:
    code = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_card_of_the_bare_minimum(folder: Path) -> None:
    (folder / layout.BOARD).unlink()
    (folder / layout.CURVE).unlink()
    text = card.write_card(folder).read_text(encoding="utf-8")
    assert "training_curve" not in text and "Scoreboard" not in text and "Samples" not in text


@pytest.mark.parametrize("base", ["./models/gemma", "../gemma", "/data/gemma", "~/gemma"])
def test_a_base_that_is_not_on_the_hub_is_not_claimed_to_be(base: str) -> None:
    assert card.metadata(tiny.training() | {"base_model": {"name": base}}).base_model is None


def test_card_without_results_is_refused(folder: Path) -> None:
    (folder / layout.TRAINING).write_text('{"settings": {}}')
    with pytest.raises(AdapterError, match=r"training.json or scoreboard.json is incomplete \(KeyError\('persona'\)"):
        card.write_card(folder)
