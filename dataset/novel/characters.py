"""Traditional characters read as the simplified ones that the Chinese rules are written in, and spelt as before again.

Only what the rules ask for is changed, one character for one, so that nothing moves.
"""

from collections.abc import Sequence
from dataclasses import replace

from dataset.novel.hints import Hint
from dataset.novel.prose import Chapter, Utterance

_TRADITIONAL = (
    "萬與東丟兩個箇為爲舉鄉於雲從們眾衆夥傳彿兒獸內寫軍幾齣剛勸動醫單衛卻歷厲廂廝隻嘆歎後嚮聽啟員喚國聖聲復頭誇婦嫗孃宮傢對將"
    "歲豈師莊應廟開當唸驚報擁攔擋搖敎數斷無時曉來樣歡畢漢淚漁滿點爺現眞禮稟稱繡繼續罷羣聯薩補錶見觀認記訣識訴詞詔詩話語說請諸"
    "誰諺謝貼賦讚贊轉輕辭邊過這連遞釋裏裡鑽鐵銅銀鋒鐫長門閃問間聞麵頌題飛罵駡黃齊龍著"
)
_SIMPLIFIED = (
    "万与东丢两个个为为举乡于云从们众众伙传佛儿兽内写军几出刚劝动医单卫却历厉厢厮只叹叹后向听启员唤国圣声复头夸妇妪娘宫家对将"
    "岁岂师庄应庙开当念惊报拥拦挡摇教数断无时晓来样欢毕汉泪渔满点爷现真礼禀称绣继续罢群联萨补表见观认记诀识诉词诏诗话语说请诸"
    "谁谚谢贴赋赞赞转轻辞边过这连递释里里钻铁铜银锋镌长门闪问间闻面颂题飞骂骂黄齐龙着"
)
_SIMPLIFY = str.maketrans(_TRADITIONAL, _SIMPLIFIED)


def simplified(text: str) -> str:
    """A text as the rules read it."""
    return text.translate(_SIMPLIFY)


def _simplified(said: Utterance) -> Utterance:
    parts, inside, between = (list(map(simplified, texts)) for texts in (said.parts, said.inside, said.between))
    lead, tail = simplified(said.lead), simplified(said.tail)
    return replace(said, parts=parts, lead=lead, inside=inside, tail=tail, between=between)


class Spelling:
    """A novel's chapters as the rules read them, and how it spells what they found there."""

    def __init__(self, chapters: Sequence[Chapter]) -> None:
        utterances = [said for chapter in chapters for said in chapter.utterances]
        texts = (text for s in utterances for text in (*s.between, s.lead, *s.parts, *s.inside, s.tail))
        self.text = "\n".join(texts)
        self.plain = simplified(self.text)
        self.chapters = [replace(c, utterances=list(map(_simplified, c.utterances))) for c in chapters]
        self._known: dict[str, str] = {}

    def of(self, found: str) -> str:
        """How the novel first writes what was found in it."""
        if found not in self._known:
            at = self.plain.find(found)
            self._known[found] = self.text[at : at + len(found)] if at >= 0 else found
        return self._known[found]

    def spelt(self, hints: Sequence[Hint]) -> list[Hint]:
        """The hints as the novel spells them."""
        return [
            replace(
                hint,
                name=self.of(hint.name),
                cue="，".join(map(self.of, hint.cue.split("，"))),
                addressed=tuple(map(self.of, hint.addressed)),
            )
            for hint in hints
        ]
