"""Every text of the interface in English and Chinese, and the few sentences that are made of figures."""

from roleplay.answers import ADAPTER, BASE, Answer

MAX_MESSAGE = 2000  # characters of a message or a persona
MAX_EXCHANGES = 200  # a longer conversation is refused, and not restored

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "tagline": "A fine-tuned character, beside what the untuned model would have said",
        "compare": "Compare with the base model",
        "blind": "Blind",
        "blind_info": "Hides which is which and shuffles the sides on every turn",
        "adapter": "Fine-tuned adapter",
        "base": "Base model, untuned",
        "base_waits": "The same question goes to the untuned model, at the same time and with the same dice.",
        "base_only": "Base model (there is no adapter yet)",
        "answer_a": "Answer A",
        "answer_b": "Answer B",
        "adapter_menu": "Adapter",
        "moves": "**{name}** is active: it moves the model by {kl:.2f} nat (mean KL over {prompts} prompts).",
        "hub": "From the Hugging Face Hub",
        "hub_info": "Choose a LoRA adapter for this base model, or write its user/name; only what train.lora makes is "
        "accepted.",
        "hub_find": "Find adapters",
        "hub_load": "Load",
        "hub_none": "The Hub lists no adapter for this base model.",
        "persona_menu": "Character",
        "message": "Message",
        "ask": "Say something, in Chinese or English…",
        "send": "Send",
        "stop": "Stop",
        "edit": "Edit the message",
        "persona": "Persona",
        "persona_prompt": "System prompt, at most 2,000 characters",
        "base_persona": "Give the base model the persona as well",
        "reset": "Reset",
        "sampling": "Sampling",
        "votes": "Blind votes",
        "steady": "Steady",
        "natural": "Natural",
        "lively": "Lively",
        "temperature": "Temperature",
        "top_p": "Top-p",
        "top_k": "Top-k (0 keeps all)",
        "repetition_penalty": "Repetition penalty",
        "max_new_tokens": "Length, in tokens",
        "seed": "Seed",
        "new_seed": "a new one each time",
        "keep": "Keep",
        "keep_note": "The conversation stays in this browser. Where the base model has no answer of its own, because "
        "the comparison was off, it is shown the adapter's.",
        "markdown": "Save as Markdown",
        "rows": "Save as training rows",
        "left": "A is better",
        "right": "B is better",
        "tie": "Equally good",
        "bad": "Both bad",
        "hidden": "Vote below to see which model this is",
        "writing": "Writing…",
        "reading": "Reading the message…",
        "not_asked": "Not asked: the comparison was off",
        "you": "You",
        "empty": "Write a message first.",
        "too_long": "This is {length:,} characters long; 2,000 fit. Shorten it.",
        "persona_too_long": "The persona is {length:,} characters long; 2,000 fit. Shorten it.",
        "too_many": "This conversation has reached {limit} messages. Clear it to go on.",
        "too_fast": "At most {limit} messages a minute: try again in {seconds} s.",
        "tokens": "{tokens} tokens",
        "first": "first in {first:.2f} s",
        "speed": "{speed:.1f} tok/s",
        "seed_shown": "seed {seed}",
        "length": "cut at the length limit",
        "stopped": "stopped",
        "dropped": "the oldest {dropped} turns no longer fit and were left out",
        "no_votes": "No votes yet. Turn on “Blind” and vote to find out which model people prefer.",
        "score": "The adapter won {wins} of {decisive} decisive votes: {share:.0%} (95 % interval {low:.0%} to "
        "{high:.0%}); {ties} ties, {bad} both bad. {verdict} {sides}",
        "inconclusive": "Not yet conclusive.",
        "prefer_adapter": "People prefer the adapter.",
        "prefer_base": "People prefer the base model.",
        "even": "A and B win alike ({left} to {right}), as they should.",
        "uneven": "One side wins too often ({left} to {right}): votes may follow the place, not the text.",
        "none_decisive": "{ties} ties, {bad} both bad, no decisive vote yet. Not yet conclusive.",
    },
    "zh": {
        "tagline": "微调出的角色，与未经微调的模型同题作答",
        "compare": "与基座模型对比",
        "blind": "盲测",
        "blind_info": "隐去名称，每轮随机左右",
        "adapter": "微调后的适配器",
        "base": "基座模型（未微调）",
        "base_waits": "同一问题会同时交给未经微调的模型，随机数也相同。",
        "base_only": "基座模型（尚无适配器）",
        "answer_a": "回答甲",
        "answer_b": "回答乙",
        "adapter_menu": "适配器",
        "moves": "**{name}** 已生效：它使模型改变 {kl:.2f} 奈特（{prompts} 个提示的平均 KL 散度）。",
        "hub": "来自 Hugging Face Hub",
        "hub_info": "选择此基座模型的 LoRA 适配器，或填写 用户/名称；只接受 train.lora 的产物。",
        "hub_find": "查找适配器",
        "hub_load": "载入",
        "hub_none": "Hub 上没有此基座模型的适配器。",
        "persona_menu": "角色",
        "message": "消息",
        "ask": "说点什么，中文或英文皆可……",
        "send": "发送",
        "stop": "停止",
        "edit": "修改消息",
        "persona": "人设",
        "persona_prompt": "系统提示词，最多 2,000 字",
        "base_persona": "基座模型也使用此人设",
        "reset": "还原",
        "sampling": "采样",
        "votes": "盲测结果",
        "steady": "沉稳",
        "natural": "自然",
        "lively": "灵动",
        "temperature": "温度",
        "top_p": "Top-p",
        "top_k": "Top-k（0 为不限）",
        "repetition_penalty": "重复惩罚",
        "max_new_tokens": "长度（词元）",
        "seed": "随机种子",
        "new_seed": "留空则每次更换",
        "keep": "留存",
        "keep_note": "对话保存在此浏览器中。对比关闭期间基座模型没有自己的回答，之后会沿用适配器的回答作为上文。",
        "markdown": "存为 Markdown",
        "rows": "存为训练数据",
        "left": "甲更好",
        "right": "乙更好",
        "tie": "一样好",
        "bad": "都不好",
        "hidden": "在下方投票后揭晓",
        "writing": "正在作答……",
        "reading": "正在读题……",
        "not_asked": "未作答：当时未开启对比",
        "you": "你",
        "empty": "请先写下消息。",
        "too_long": "此消息有 {length:,} 字，最多 2,000 字，请缩短。",
        "persona_too_long": "人设有 {length:,} 字，最多 2,000 字，请缩短。",
        "too_many": "对话已达 {limit} 条，请清空后再继续。",
        "too_fast": "每分钟最多 {limit} 条消息，请 {seconds} 秒后再试。",
        "tokens": "{tokens} 词元",
        "first": "首词 {first:.2f} 秒",
        "speed": "{speed:.1f} 词元/秒",
        "seed_shown": "种子 {seed}",
        "length": "已达长度上限",
        "stopped": "已停止",
        "dropped": "最早的 {dropped} 轮已放不下，未计入上文",
        "no_votes": "尚无投票。打开“盲测”并投票，看看哪个模型更受欢迎。",
        "score": "适配器在 {decisive} 张有效票中胜 {wins} 张：{share:.0%}（95% 区间 {low:.0%} 至 {high:.0%}）；"
        "平局 {ties}，都不好 {bad}。{verdict}{sides}",
        "inconclusive": "尚无定论。",
        "prefer_adapter": "人们更喜欢适配器。",
        "prefer_base": "人们更喜欢基座模型。",
        "even": "甲乙两侧胜数相当（{left} 比 {right}），符合预期。",
        "uneven": "其中一侧胜得过多（{left} 比 {right}）：投票或受位置影响。",
        "none_decisive": "平局 {ties}，都不好 {bad}，尚无有效票，尚无定论。",
    },
}


def language(accept_language: str | None) -> str:
    """ "zh" when the first language of an Accept-Language header is Chinese, else "en"."""
    return "zh" if (accept_language or "").strip().lower().startswith("zh") else "en"


def refusal(language: str, message: str, persona: str = "", exchanges: int = 0) -> str:
    """The sentence that says why a message is not answered, "" if it is."""
    words = TEXTS[language]
    if not message.strip():
        return words["empty"]
    if len(message.strip()) > MAX_MESSAGE:
        return words["too_long"].format(length=len(message.strip()))
    if len(persona) > MAX_MESSAGE:
        return words["persona_too_long"].format(length=len(persona))
    return words["too_many"].format(limit=MAX_EXCHANGES) if exchanges >= MAX_EXCHANGES else ""


def footer(language: str, answer: Answer, seed: int, side: str) -> str:
    """What stands under an answer: who spoke (if `side` is given), tokens, times, seed, and what went amiss."""
    words = TEXTS[language]
    parts = [words[side]] if side in (ADAPTER, BASE) else []
    if answer.tokens:
        parts += [
            words["tokens"].format(tokens=answer.tokens),
            words["first"].format(first=answer.seconds_to_first_token),
        ]
        parts += [words["speed"].format(speed=answer.tokens_per_second)] if answer.tokens_per_second else []
    elif not answer.stop:
        parts.append(words["reading"])
    parts.append(words["seed_shown"].format(seed=seed))
    if answer.dropped_turns:
        parts.append(words["dropped"].format(dropped=answer.dropped_turns))
    if answer.stop not in ("", "end"):
        parts.append(words.get(answer.stop, answer.stop))
    return " · ".join(parts)
