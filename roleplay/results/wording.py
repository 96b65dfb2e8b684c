"""Every text of the interface in English and Chinese, and the few sentences that are made of figures."""

from roleplay.engine.protocol import ADAPTER, BASE, Answer

MAX_MESSAGE = 2000  # characters of a message or a persona
MAX_EXCHANGES = 200  # a longer conversation is refused, and not restored

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "tagline": "A fine-tuned character, beside what the untuned model would have said",
        "compare": "Compare with the base model",
        "blind": "Blind",
        "adapter": "Fine-tuned adapter",
        "base": "Base model, untuned",
        "base_waits": "The same question goes to the untuned model, at the same time and with the same dice.",
        "base_only": "Base model (there is no adapter yet)",
        "answer_a": "Answer A",
        "answer_b": "Answer B",
        "adapter_menu": "Adapter",
        "moves": "**{name}** is active: it moves the model by {kl:.2f} nat (mean KL over {prompts} prompts).",
        "hub": "From the Hugging Face Hub",
        "hub_info": "Choose an adapter for this base model, or write user/name; only what train.lora makes is taken.",
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
        "given": "The base model is given",
        "given_persona": "the persona",
        "given_nothing": "nothing",
        "given_examples": "the persona and the three nearest training rows",
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
        "frequency_penalty": "Frequency penalty",
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
        "with_nothing": "without a persona",
        "with_examples": "with training rows as examples",
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
        "loading": "One moment, please",
        "stage_start": "Starting…",
        "stage_fetch": "Preparing the base model; the first time it is unpacked or downloaded, which takes minutes…",
        "stage_load": "Loading the base model…",
        "stage_adapters": "Checking and loading the adapters…",
        "failed": "It cannot start: {error}",
        "queued": "Waiting for other answers: yours is number {place} in the queue",
        "queue_full": "Too many people are waiting just now. Send it again in a minute.",
        "chat": "Chat",
        "scoreboard": "Scoreboard",
        "training": "Training",
        "board_note": "How the adapter measures up, in replies and text that it never saw. In brackets stands the 95 % "
        "interval: figures whose intervals overlap may differ by chance.",
        "board_missing": "{name} has not been measured yet. To measure it, run this where the project is installed:",
        "plot_board": "Every figure above with its interval, and how long the role is kept",
        "plot_curve": "The training: loss on training and on held-out rows, lower is better",
        "figure": "{value} ({low} to {high})",
        "against": "The adapter against {arm}: better: {better}; worse: {worse}; undecided: {undecided}.",
        "nothing": "nothing",
        "comma": ", ",
        "rules": "The rules blame {false_alarms} of {good} good replies labelled by hand and miss {missed} of {broken} "
        "broken ones; they blame {blamed} of {references} held-out references.",
    },
    "zh": {
        "tagline": "微调出的角色，与未经微调的模型同题作答",
        "compare": "与基座模型对比",
        "blind": "盲测",
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
        "given": "基座模型得到",
        "given_persona": "此人设",
        "given_nothing": "无提示",
        "given_examples": "此人设与最相近的三条训练语料",
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
        "frequency_penalty": "频次惩罚",
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
        "with_nothing": "无人设",
        "with_examples": "以训练语料为例",
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
        "loading": "请稍候",
        "stage_start": "正在启动……",
        "stage_fetch": "正在准备基座模型；首次需要解包或下载，约几分钟……",
        "stage_load": "正在加载基座模型……",
        "stage_adapters": "正在检查并加载适配器……",
        "failed": "无法启动：{error}",
        "queued": "正在排队：您是第 {place} 位",
        "queue_full": "此刻排队的人太多，请稍后再发。",
        "chat": "对话",
        "scoreboard": "成绩单",
        "training": "训练",
        "board_note": "以适配器未曾见过的问答与文字衡量其水准。括号内为 95% 区间：区间相交时，差别可能出于偶然。",
        "board_missing": "{name} 尚未测评。请在装有本项目的机器上运行：",
        "plot_board": "上表各项及其区间，以及角色能保持多少轮",
        "plot_curve": "训练过程：训练语料与留出语料的损失，越低越好",
        "figure": "{value}（{low} 至 {high}）",
        "against": "适配器与“{arm}”相比，更好：{better}；更差：{worse}；未见分晓：{undecided}。",
        "nothing": "无",
        "comma": "、",
        "rules": "规则误判 {good} 条人工标注佳答中的 {false_alarms} 条，漏判 {broken} 条破功回答中的 {missed} 条；"
        "在 {references} 条留出参考答案中指摘 {blamed} 条。",
    },
}

# What the measures of a scoreboard are called and mean. The keys are those of `scoreboard.MEASURES`.
MEASURES: dict[str, dict[str, tuple[str, str]]] = {
    "en": {
        "held-out loss": ("held-out loss", "Nat per token of her replies in rows that were never trained on."),
        "choice": (
            "choice",
            "Held-out questions that make her own reply likelier than nine others, per token; chance is 10 %.",
        ),
        "facts": ("facts", "Written questions about her life whose right answer is likeliest of four; chance is 25 %."),
        "recall": ("recall", "Short conversations after which she says again what the user had told her."),
        "stop rate": ("stop rate", "Replies that end by themselves within the length that every arm is given."),
        "stop rate, 256": ("stop rate, 256", "Replies to every held-out scene that end within the page's 256 tokens."),
        "copied, 256": ("copied, 256", "Of the same replies, those with 10 characters (6 words) of the training rows."),
        "openers that stop": ("openers that stop", "Greedy replies to the persona's openers that end by themselves."),
        "tokens": ("tokens", "Mean length of a reply in tokens, cut at the length that every arm is given."),
        "chrF": ("chrF", "Character n-grams shared with her written reply, 0 to 100."),
        "distinct-2": ("distinct-2", "Distinct pairs of neighbouring words or characters, of all."),
        "copied": ("copied", "Replies with a run of 10 characters (6 words) that stands in the training rows."),
        "identity": ("identity", "Written questions about who she is that get an accepted answer in character."),
        "in character": ("in character", "Written attempts to break the role after which no rule finds a fault."),
        "first turns": ("first turns", "Replies in the first three of ten turns in which no rule finds a fault."),
        "last turns": ("last turns", "Replies in the last three of ten turns; lower than the first is drift."),
        "plain Chinese": ("plain Chinese", "Nat per token of plain Chinese text: higher than base is forgetting."),
        "plain English": ("plain English", "Nat per token of plain English text: higher than base is forgetting."),
    },
    "zh": {
        "held-out loss": ("留出损失", "她在从未训练过的语料中的回答，每词元的奈特数。"),
        "choice": ("择答", "留出的问题中，使她自己的回答比另九条（按词元计）更添几率的；随意猜为 10%。"),
        "facts": ("知事", "关于她生平的问题中，四个答案里以正确者几率最高的；随意猜为 25%。"),
        "recall": ("记性", "简短的对话中，末了被问起时能说出来人先前所言的。"),
        "stop rate": ("自行收尾", "在各方同等的长度内自己说完的回答。"),
        "stop rate, 256": ("256 词元内收尾", "对每个留出场景的回答中，在页面的 256 词元内自己说完的。"),
        "copied, 256": ("256 词元内照抄", "上述回答中，含有训练语料中连续 10 字（6 词）原文的。"),
        "openers that stop": ("开场白收尾", "以贪心解码回答各句开场白，自己说完的。"),
        "tokens": ("词元数", "回答的平均长度，以各方同等的长度为限。"),
        "chrF": ("chrF", "与她原来的回答共有的字符片段，0 至 100。"),
        "distinct-2": ("distinct-2", "相邻两字（词）的组合中互不相同者所占比例。"),
        "copied": ("照抄", "含有训练语料中连续 10 字（6 词）原文的回答。"),
        "identity": ("身份", "固定的身份问题中，以角色口吻答对的。"),
        "in character": ("不出戏", "固定的诱其出戏之问中，规则挑不出毛病的回答。"),
        "first turns": ("前三轮", "十轮对话的前三轮中，规则挑不出毛病的回答。"),
        "last turns": ("后三轮", "十轮对话的后三轮；低于前三轮即为走样。"),
        "plain Chinese": ("普通中文", "无关中文文字每词元的奈特数；高于基座即为遗忘。"),
        "plain English": ("普通英文", "无关英文文字每词元的奈特数；高于基座即为遗忘。"),
    },
}
FLIPS: dict[str, str] = {  # which items of a list the adapter wins and loses
    "en": "{measure}: of {items} items the adapter wins {won} and loses {lost} against base + persona "
    "(exact McNemar test, {p}).",
    "zh": "{measure}：与“基座加人设”逐题相比，{items} 题中适配器赢 {won} 题、输 {lost} 题（McNemar 精确检验，{p}）。",
}
ARMS: dict[str, dict[str, str]] = {  # the keys are those of `scoreboard.ARMS`
    "en": {arm: arm for arm in ("base", "base + persona", "base + retrieval", "adapter", "reference")},
    "zh": {
        "base": "基座",
        "base + persona": "基座加人设",
        "base + retrieval": "基座加检索",
        "adapter": "适配器",
        "reference": "参考答案",
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


def footer(language: str, answer: Answer, seed: int, side: str, given: str = "persona") -> str:
    """Under an answer: who spoke (if `side` is set), tokens, times, seed, a `given` that is not the persona, faults."""
    words = TEXTS[language]
    parts = [words[side]] if side in (ADAPTER, BASE) else []
    if answer.tokens:
        parts.append(words["tokens"].format(tokens=answer.tokens))
        parts.append(words["first"].format(first=answer.seconds_to_first_token))
        parts += [words["speed"].format(speed=answer.tokens_per_second)] if answer.tokens_per_second else []
    elif not answer.stop:
        parts.append(words["reading"])
    parts.append(words["seed_shown"].format(seed=seed))
    if note := words.get(f"with_{given}"):
        parts.append(note)
    if answer.dropped_turns:
        parts.append(words["dropped"].format(dropped=answer.dropped_turns))
    if answer.stop not in ("", "end"):
        parts.append(words.get(answer.stop, answer.stop))
    return " · ".join(parts)
