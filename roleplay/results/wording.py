"""The words for votes and figures in English and Chinese: sentences of a tally and a scoreboard, measures, arms."""

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "no_votes": "No votes yet. Turn on “Blind” and vote to find out which model people prefer.",
        "score": "The adapter won {wins} of {decisive} decisive votes: {share:.0%} (95 % interval {low:.0%} to "
        "{high:.0%}); {ties} ties, {bad} both bad. {verdict} {sides}",
        "inconclusive": "Not yet conclusive.",
        "prefer_adapter": "People prefer the adapter.",
        "prefer_base": "People prefer the base model.",
        "even": "A and B win alike ({left} to {right}), as they should.",
        "uneven": "One side wins too often ({left} to {right}): votes may follow the place, not the text.",
        "none_decisive": "{ties} ties, {bad} both bad, no decisive vote yet. Not yet conclusive.",
        "figure": "{value} ({low} to {high})",
        "against": "The adapter against {arm}: better: {better}; worse: {worse}; undecided: {undecided}.",
        "nothing": "nothing",
        "comma": ", ",
        "rules": "The rules blame {false_alarms} of {good} good replies labelled by hand and miss {missed} of {broken} "
        "broken ones; they blame {blamed} of {references} held-out references.",
    },
    "zh": {
        "no_votes": "尚无投票。打开“盲测”并投票，看看哪个模型更受欢迎。",
        "score": "适配器在 {decisive} 张有效票中胜 {wins} 张：{share:.0%}（95% 区间 {low:.0%} 至 {high:.0%}）；"
        "平局 {ties}，都不好 {bad}。{verdict}{sides}",
        "inconclusive": "尚无定论。",
        "prefer_adapter": "人们更喜欢适配器。",
        "prefer_base": "人们更喜欢基座模型。",
        "even": "甲乙两侧胜数相当（{left} 比 {right}），符合预期。",
        "uneven": "其中一侧胜得过多（{left} 比 {right}）：投票或受位置影响。",
        "none_decisive": "平局 {ties}，都不好 {bad}，尚无有效票，尚无定论。",
        "figure": "{value}（{low} 至 {high}）",
        "against": "适配器与“{arm}”相比，更好：{better}；更差：{worse}；未见分晓：{undecided}。",
        "nothing": "无",
        "comma": "、",
        "rules": "规则误判 {good} 条人工标注佳答中的 {false_alarms} 条，漏判 {broken} 条破功回答中的 {missed} 条；"
        "在 {references} 条留出参考答案中指摘 {blamed} 条。",
    },
}

# What the measures of a scoreboard are called and mean. The keys are those of `board.MEASURES`.
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
ARMS: dict[str, dict[str, str]] = {  # the keys are those of `board.ARMS`
    "en": {arm: arm for arm in ("base", "base + persona", "base + retrieval", "adapter", "reference")},
    "zh": {
        "base": "基座",
        "base + persona": "基座加人设",
        "base + retrieval": "基座加检索",
        "adapter": "适配器",
        "reference": "参考答案",
    },
}
