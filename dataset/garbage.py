"""What a training would teach by accident: macros, other models' control tokens, markup, the word null."""

import re
from collections.abc import Sequence
from html.entities import html5

from dataset.report import Finding
from roleplay.text.rows import Row

NAMED_ROWS = 5  # how many rows a finding names
_NAMES = r"(?:char|user|bot|name|names?|author|姓名|名字|角色名?|用户名?|昵称|作者|your name|character|insert [^\]>}]*)"
GARBAGE = {  # what is found in a text, by what it is
    "a macro or an unfilled placeholder": re.compile(
        rf"\{{\{{[^{{}}\n]{{1,40}}\}}\}}|\$\{{\w+\}}|(?<!\{{)\{{{_NAMES}\}}(?!\}})|\[{_NAMES}\]|【{_NAMES}】|<{_NAMES}>"
        r"|<\|?(?:user|char|bot)name\|?>|%\(\w+\)s|(?-i:\bTODO\b|\bXXX+\b)|[某Ｘ]{3,}",
        re.IGNORECASE,
    ),
    "a control token of another model": re.compile(
        r"<\|[^<>|\n]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\]|<</?SYS>>"
        r"|</?s>|<(?:pad|unk|bos|eos|mask)>|\[(?:UNK|PAD|CLS|SEP|MASK|gMASK|EOS|BOS)\]|<(?:start|end)_of_turn>"
        r"|^###\s*(?:Instruction|Response|Input|Human|Assistant|指令|回答)\b.*|<\|?(?:end_of_text|endoftext|sep|eod)\|?>",
        re.MULTILINE,
    ),
    "a block of a reasoning model's thoughts": re.compile(
        r"</?(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad|思考)>|\[/?THINK\]|◁/?think▷",
        re.IGNORECASE,
    ),
    "an HTML entity or tag": re.compile(
        rf"&(?:{'|'.join(name[:-1] for name in html5 if name[-1] == ';')}|#\d{{1,6}}|#x[0-9a-f]{{1,6}});"
        r"|</?(?:br|p|div|span|b|i|u|em|strong|a|img|font|ul|ol|li|h[1-6]|td|tr|table|script|style)(?:\s[^<>]*)?/?>",
        re.IGNORECASE,
    ),
    "nothing but a word for nothing": re.compile(
        r"\A\s*(?:无|空|\[\]|\{\})[.。]?\s*\Z|^\s*(?:null|none|nil|nan|undefined|n/?a|#n/a|<na>)[.。]?\s*\Z",
        re.IGNORECASE | re.MULTILINE,
    ),
    "letters that were decoded wrongly": re.compile(
        r"[\x00-\x08\x0e-\x1f\ufeff\ufffd]|锟斤拷|烫烫烫|â€[™œ\x9d“”˜¦]|Ã[\xa0-\xbf]|ï»¿"
    ),
}


def find_garbage(rows: Sequence[Row]) -> list[Finding]:
    """A warning for each kind, with the rows: in a reply it is learnt, in a user's text it is expected of visitors."""
    findings = []
    for what, pattern in GARBAGE.items():
        named, replies = [], 0
        for row in rows:
            reply = next((m for _, text in row.turns if (m := pattern.search(text))), None)
            user = next((m for text, _ in row.turns if (m := pattern.search(text))), None)
            replies += bool(reply)
            if found := reply or user:
                where = "reply" if reply else "user"
                named.append(
                    f"{row.where}: {found[0].strip()!r:.60} in the {where}: {row.turns[-1][reply is not None]}"
                )
        if named:
            text = (
                f"{len(named):,} rows hold {what}, {replies:,} of them in a reply, which the model would learn to say"
            )
            findings.append(Finding("warning", text, named[:NAMED_ROWS]))
    return findings
