"""Texts that try to be something else: control tokens, markup, code, invisible characters. It knows no page.

`messages` is the long list, for whatever reads text; `MARKUP` are the ones that a browser might act on. Every one of
these calls `hit` or asks for `/hit`, so that one that ran is seen.
"""

import random
from collections.abc import Iterator, Sequence

MARKUP = (
    "<script>hit()</script>",
    "<img src=/hit onerror=hit()>",
    '"><svg onload=hit()><animate onbegin=hit() attributeName=x dur=1s>',
    "<svg><script xlink:href=/hit></script><use href='data:image/svg+xml,<svg id=x onload=hit()>#x'/></svg>",
    "<iframe srcdoc='<script>parent.hit()</script>'></iframe><iframe src=/hit></iframe>",
    "<details open ontoggle=hit()><summary>x</summary></details>",
    "<video><source onerror=hit()></video><audio src=/hit onerror=hit()>",
    "<style>@import '/hit'; * { background: url(/hit) }</style><link rel=stylesheet href=/hit>",
    "<meta http-equiv=refresh content='0;url=/hit'><base href=/hit/>",
    "<form action=/hit><input autofocus onfocus=hit()><button formaction=javascript:hit()>",
    "<object data=/hit></object><embed src=/hit>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=/hit onerror=hit()&gt;'>",
    "<noscript><p title='</noscript><img src=/hit onerror=hit()>'>",
    "<x-tag contenteditable autofocus onfocus=hit() tabindex=1>x",
    "&lt;script&gt;hit()&lt;/script&gt; &#60;img src=/hit onerror=hit()&#62;",
    "\\u003cscript\\u003ehit()\\u003c/script\\u003e \\x3cscript\\x3ehit()\\x3c/script\\x3e",
    "<scr\u200bipt>hit()</scr\u200bipt><\u2060script>hit()<\u2060/script><<script>script>hit()</script>",
    "<ScRiPt\x00>hit()</sCrIpT><img/src=/hit/onerror=hit()>",
    "[link](javascript:hit()) ![image](/hit) <javascript:hit()> [a]: javascript:hit()",
    "```html\n<script>hit()</script>\n```\n```mermaid\ngraph TD; A[<img src=/hit onerror=hit()>]\n```",
    "$$\\href{javascript:hit()}{x}$$ \\(\\includegraphics{/hit}\\) $\\htmlData{onload=hit()}{x}$",
    "\\[\\url{javascript:hit()}\\]",
    "<think>hidden</think><tool_call>{}</tool_call><details><b>x</b>",
    "javascript:hit()//';hit();//\"-hit()-\"${hit()}{{constructor.constructor('hit()')()}}",
    "{{7*7}} {% include '/etc/passwd' %} ${7*7} #{7*7} <%= 7*7 %> {user} {0.__class__} %s%n",
    "'; DROP TABLE votes; -- ../../../../etc/passwd file:///etc/passwd | cat /etc/passwd `id` $(id)",
)
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u061c\u180e\u2028\u2029\ufe0f\U000e0041\U000e0001"
BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
BROKEN = ("\x00", "\x1b[2J", "\ud800", "\udfff\ud800", "\ufffe\uffff", "e" + "\u0301" * 200, "\r\n\v\f\x85", "🏳️‍🌈")


def forms(token: str, dice: random.Random) -> list[str]:
    """A token whole, split by what cannot be seen, inside itself, and in other letters."""
    cut = dice.randrange(1, len(token)) if len(token) > 1 else 1
    a, b = token[:cut], token[cut:]
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in token)
    return [token, a + dice.choice(INVISIBLE + BIDIRECTIONAL) + b, a + token + b, a + a + b + b, token.swapcase(), wide]


def messages(tokens: Sequence[str], count: int, seed: int = 0) -> Iterator[str]:
    """`count` texts: as many as fit have every form of one of the `tokens` each, the others are mixed at random.

    Every four-thousandth has a million characters.
    """
    dice = random.Random(seed)
    order = dice.sample(list(tokens), len(tokens))
    glue = ["", " ", "\n", "\n\n", "<", "user\n", "字", "▁", *INVISIBLE, *BIDIRECTIONAL, *BROKEN]
    for number in range(count):
        if number < len(order):
            yield dice.choice(glue).join(forms(order[number], dice))
            continue
        pieces = [
            dice.choice(forms(dice.choice(order), dice)),
            dice.choice(MARKUP),
            dice.choice(BROKEN),
            "".join(dice.choices(INVISIBLE + BIDIRECTIONAL, k=5)),
            *dice.choices(order, k=3),
            "".join(
                chr(dice.choice([dice.randrange(0x80), dice.randrange(0x3000), dice.randrange(0x110000)]))
                for _ in range(9)
            ),
        ]
        text = dice.choice(glue).join(dice.sample(pieces, dice.randint(2, len(pieces))))
        yield (text * (1_000_000 // len(text) + 1))[:1_000_000] if number % 4000 == 3999 else text
