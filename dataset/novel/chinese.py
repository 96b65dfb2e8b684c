"""Who speaks, by what Chinese narration says around a speech: its subject, carried over clauses and sentences."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from dataset.novel.hints import Hint
from dataset.novel.prose import Chapter, Utterance

_PREFIX = (
    r"(?:只见|真个|忽见|却见|但见|又见|正见|却说|且说|话说|再说|单说|原来|你看|早有|忽有|又有|只有|内有|有|正是|在那里|从那里|旁边|此时|这时|"
    r"果然|果|忽然|忽|那边|这边|下面|里面|后面|前面|上面|外面|左右|\w{0,3}得|把个|众中|好|若|个|伙|班|群|些|位|般|名|两个|几个|那|这|一|又|即|便|就|却|方|再|次日|当时|于是|连|"
    r"只听得|忽听得|听得|听见|说话间|内中)"
)
_MANNER = (
    r"(?:闻言|听说|听了|听得|听罢|听毕|见说|闻得|闻说|听见|见了|看见|高声|厉声|齐声|应声|连声|失声|低声|大声|轻声|柔声|沉声|"
    r"慌忙|连忙|急忙|慌了|大惊|大喜|大怒|十分|欢喜|满心|心中|心里|心下|口里|口中|暗暗|暗想|暗|冷冷|冷|呵呵|嘻嘻|哈哈|微微|"
    r"淡淡|上前|近前|回头|转身|躬身|合掌|忍不住|点头|摇头|叩头|拱手|欠身|开口|转头|一声|着|\w\w地|的|在旁|继续|接着|方才|却才|"
    r"[笑大又忙急即便就也却都齐俱喝叫骂怒喜答回应问叹哭泣奏启禀告报拜谢惊慌再复乃陪遂忽只低轻厉高想思猛喊吩咐])"
)
_VERB = (
    r"(?:[道说說曰云叫问問言教喝骂罵喊嚷吼答叹嘆哭笑想念唱报奏禀令命催劝附呼称赞咐诉告]|叫声|道声|喝声|回答|补充|解释|"
    r"嘟囔|嘀咕|低语|开口|反问|追问|打断)"
)
_WHOLE = re.compile(rf"^(?P<front>{_PREFIX}*?)(?P<name>\w{{1,7}}?){_MANNER}*{_VERB}$")
_AFTER = re.compile(rf"^(?P<name>\w{{1,7}}?){_MANNER}*(?:\w{{0,6}}?[地着])?{_VERB}(?:着|了)?(?:道)?$")
_NO_NAME = re.compile(rf"(?:{_PREFIX}|{_MANNER}|{_VERB}|[他她它你我其之是不心口声来去身手])+")
_PERSON = re.compile(
    r"[王神妖怪僧人子女仙官公母婆老将兵鬼圣臣士童汉翁妇师佛精魔者帝后妃爷娘氏兄弟姐妹客侍卫长差徒猴龙头夫家主儿叟尊君生哥嫂叔伯姑丞相妪翁叟童郎工匠员娥嫂姑]$"
)
_NOT_IN_NAMES = re.compile(
    r"^[对向与被把将教令命问往从到传]|上前|一齐|磕头|施礼|躬身|真个|时间|自|[是跪坐立站走跑迎倚怎那这都满举忽急飞哼害依夸省方了着住在见毕起入出来去的泪把对与递报扯问叩看按落捽现咬打用滴兢悄推交喝听闻说道声叫]"
)
_ADVERB = "方连若正又即便就却再次一"
_NAMED = "[那这对与向见问叫着被教和]"
_ATTRIBUTE = "[金银铜铁头大小老二三四五六七八九十东西南北海上下前后左右南假真众群诸]{0,3}?"
_OBJECT_OF = re.compile(
    r"(?:[对对向与和同被把将着教叫令命见问谢辞骂请望扶引随领送请至到给跟朝打看听使让往替为]|扯住|指着|指定|搀着|看着|望着|递与)"
    r"(?:那|这|个|众)*$"
)
_APPEARS = re.compile(
    r"(?:有|得|闪过|走出|转过|跳出|闪出|来了|走过|走来|钻出|撞出|惊动|惹得|慌得|只见|听见|听得)\w{0,3}$"
)
_PRONOUN = re.compile(rf"{_PREFIX}*(他们|她们|他|她|其人|我们|我|俺)(?!家|们|娘|的|两|二)")
_PRONOUNS = ("他们", "她们", "他", "她", "其人", "我们", "我", "俺")
_HEARD = re.compile(r"(?:只|忽|又|正)?(?:听得|闻得|听见)")
_NEW = re.compile(r"(?:只见|真个|忽见|忽有|早有|旁边|有|时有)?(?:[那这](?!里|边|时|等|样|般)|一个|个)")
_ACTS = re.compile(r"[又便即叫教问道说喝骂笑再复却遂将把急忙捋忍哏口心念吩喊转丢放取拿拔弄扯伸摇点]")
_ROLES = (
    "大王 太子 公主 皇帝 娘娘 将军 菩萨 和尚 老爷 夫人 小姐 先生 老者 老儿 妇人 女子 汉子 老汉 老妪 老妇 "
    "老翁 丞相 道士 道人 樵夫 渔翁 小厮 丫鬟 家僮 店家 差人 使者 童子 星宿 真人 大仙 二将 官人 老人 少年 "
    "青年 男人 女人 姑娘 孩子 老头 老板 医生 老师"
)
_SENSED = re.compile(r"[只忽却但又正早一便]?(?:听得|听见|闻得|见)")
_BY = re.compile(r"\w{0,6}被(?:那|这)?")
_ALL = re.compile(r"又?(?:俱|都|齐|一齐)")
_SILENT = re.compile(r"(?:不答|不言|不语|默然|无言|不应|答应不)")


def names(chapters: Sequence[Chapter]) -> Counter[str]:
    """Who is said to speak, by the tags that hold a name, its manner and a verb alone, and how often."""
    found: Counter[str] = Counter()
    for chapter in chapters:
        for said in chapter.utterances:
            for text, tag in ((said.lead, _WHOLE), *((gap, _AFTER) for gap in (*said.inside, said.tail))):
                clauses = _clauses(text)
                match = tag.match(clauses[-1 if tag is _WHOLE else 0]) if clauses else None
                if match:
                    front = re.match(f"(?:(?![{_ADVERB}]){_PREFIX})*", match["name"])
                    assert front
                    name = match["name"][front.end() :] or match["name"]
                    certain = (
                        len(name) > 1
                        or clauses[-1 if tag is _WHOLE else 0][match.start("name") + front.end() - 1] in "那这"
                    )
                    if certain and not _NO_NAME.fullmatch(name):
                        found[name] += 1
    narration = "\n".join(_narration(chapters))
    for name, count in list(found.items()):
        person = _PERSON.search(name) or name[0] in "众群诸"
        place = not person and re.search(r"[上下里边旁前后间厢中外]$", name)
        contexts = len(re.findall(_NAMED + re.escape(name), narration))
        known = name[0] in "众群诸" or (person and count > 1) or (count > 2 and len(name) < 4) or contexts > 0
        if _NOT_IN_NAMES.search(name):
            known = len(name) < 4 and count > 4 and contexts > 4
        if place or not known or (len(name) > 5 and count < 3):
            del found[name]
    for name in sorted(found, key=len, reverse=True):
        longer = any(found[name[:end]] >= 2 * found[name] for end in range(2, len(name)))
        if longer or (name[0] in _ADVERB and found[name[1:]] >= 2 * found[name]):
            del found[name]
    return found


def _narration(chapters: Iterable[Chapter]) -> Iterable[str]:
    for chapter in chapters:
        for said in chapter.utterances:
            yield from (*said.between, said.lead, *said.inside, said.tail)


def _clauses(text: str) -> list[str]:
    return [clause for clause in re.split(r"[，。！？：；,．\s“”]+", text) if clause]


def _stranger(clause: str, tag: re.Pattern[str] = _WHOLE) -> str:
    """The name in "X笑道", though no other tag has it."""
    match = tag.match(clause)
    name = match["name"] if match else ""
    return name if 1 < len(name) < 5 and not _NO_NAME.fullmatch(name) and not _NOT_IN_NAMES.search(name) else ""


class Finder:
    """Finds the subject of narration among the names of one novel."""

    def __init__(self, cast: Iterable[str]) -> None:
        cast = set(cast)
        alone = {name[1:] for name in cast if name[0] == "众" and len(name) > 2}
        self.names = sorted(cast | alone | set(_ROLES.split()), key=lambda name: (-len(name), name))
        choice = "|".join(map(re.escape, self.names)) or "(?!)"
        long = "|".join(re.escape(name) for name in self.names if len(name) > 1) or "(?!)"
        self.first = re.compile(
            rf"(?P<front>{_PREFIX}*?(?:(?![把将对向与被])\w{{1,5}}的)?)(?:{_ATTRIBUTE}(?={long}))?(?P<name>{choice})"
        )
        title = "|".join(name for name in self.names if len(name) > 1 and _PERSON.search(name))
        self.titled = re.compile(rf"(?:那|这|却说|只见)+(?P<name>(?P<own>\w{{1,3}}?)(?:{title}))")
        self.any = re.compile(choice)

    def subject(self, clause: str) -> str:
        """The name that a clause begins with, or that it makes appear; "他" and the like for a pronoun, or ""."""
        if match := self.first.match(clause):
            return self.shown(match["name"], match["front"])
        titled = self.titled.match(clause)
        if titled and not _NOT_IN_NAMES.search(titled["name"]) and not _NO_NAME.fullmatch(titled["own"]):
            return titled["name"]
        if pronoun := _PRONOUN.match(clause):
            return pronoun[1]
        for match in self.any.finditer(clause):
            before = clause[: match.start()]
            if _APPEARS.search(before) and (len(match[0]) > 1 or before[-1] in "那这"):
                return self.shown(match[0], before)
        return ""

    def shown(self, name: str, before: str) -> str:
        return name if len(name) > 1 else (before[-1:] if before[-1:] in ("那", "这") else "那") + name

    def hint(self, said: Utterance) -> Hint:
        """What the narration around a speech says of its speaker."""
        for gap in (*said.inside, said.tail):
            clauses = _clauses(gap)
            after = clauses and not said.lead.endswith("：") and _AFTER.match(clauses[0])
            if after and (subject := self.subject(clauses[0]) or _stranger(clauses[0], _AFTER)):
                return Hint(subject, 7.0, cue=clauses[0], fresh=1.0)
        if not said.lead:
            return Hint()
        tagged = bool(re.search(rf"[：:；]$|{_VERB}$", said.lead))
        weight = 8.0 if tagged else 3.5
        sentences = re.split(r"(?<=[。！？．])", "。".join([*said.between[-2:], said.lead]))
        sentences = [sentence for sentence in sentences if _clauses(sentence)][-4:]
        cue, pronoun = _clauses(sentences[-1])[-1] if sentences else "", ""
        sensed = ""
        for back, sentence in enumerate(reversed(sentences)):
            clauses = _clauses(sentence)
            for ago, clause in enumerate(reversed(clauses)):
                by = None if back or ago else _BY.match(clause)
                subject = self.subject(clause[by.end() :] if by else clause)
                if not (back or ago) and _HEARD.match(clause) and not subject:
                    return Hint(cue=cue, same=-2.0, fresh=1.0)
                if not back:
                    cue = "，".join(clauses[len(clauses) - 1 - ago :])[-60:]
                if subject in _PRONOUNS:
                    pronoun = pronoun or subject
                    continue
                if subject and _SILENT.search(clause):
                    return Hint(cue=cue, same=4.0, fresh=1.0)
                if subject and ago and _SENSED.match(clause):  # whom another saw or heard
                    sensed = sensed or subject
                    continue
                if subject:
                    weight -= 0.3 * ago + 1.5 * back + (1.0 if pronoun else 0.0)
                    return Hint(subject, max(weight, 1.0), cue=cue, fresh=1.0)
                if not back and len(clauses) == 1 and (stranger := _stranger(clause)):
                    return Hint(stranger, 6.0, cue=cue, fresh=1.0)
                if not back and ago == len(clauses) - 1 and _NEW.match(clause) and "一个个" not in clause:
                    return Hint(cue=cue, same=-2.0, fresh=1.0)
        if sensed:
            return Hint(sensed, 4.0, cue=cue, fresh=1.0)
        other = pronoun or _ALL.match(cue) or re.search(r"^(?:听|闻|见)", said.lead)
        brief = tagged and (len(said.lead) < 8 or _ACTS.match(said.lead))
        return Hint(cue=cue, fresh=1.0, new_turn=False, same=-2.0 if other else 3.0 if brief else 0.5)


def hints(chapter: Chapter, finder: Finder) -> Sequence[Hint]:
    """One hint a speech."""
    return [finder.hint(said) for said in chapter.utterances]
