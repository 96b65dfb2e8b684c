"""How English novels name and tag a speaker, as patterns; it knows no speech."""

import re

SPEAK = (
    "said|say|says|answered|asked|cried|remarked|replied|observed|continued|exclaimed|whispered|ejaculated|"
    "returned|shouted|repeated|murmured|gasped|added|began|went on|suggested|explained|inquired|enquired|"
    "responded|muttered|called|laughed|roared|screamed|growled|groaned|sighed|interrupted|interposed|insisted|"
    "agreed|admitted|announced|protested|pleaded|begged|declared|commented|demanded|retorted|rejoined|snapped|"
    "sobbed|stammered|yelled|pursued|resumed|put in|broke in|broke out|burst out|chuckled|shrieked|moaned|"
    "hissed|breathed|grumbled|faltered|urged|warned|told|thought|wondered|queried|quoth|smiled|thundered|"
    "bellowed|panted|drawled|mumbled|nodded|concluded|confessed|assured|proposed|persisted|hinted|persevered|"
    "sneered|bawled|implored|entreated|apologised|apologized|conceded|joked|lied|teased|promised|ordered|"
    "commanded"
)
MALE_TEXT = "mr sir lord king prince count duke baron father uncle brother master monsieur squire"
MALE = frozenset(MALE_TEXT.split())
FEMALE_TEXT = "mrs miss ms lady queen princess countess duchess madame mademoiselle mother aunt sister"
FEMALE = frozenset(FEMALE_TEXT.split())
TITLES = ("Doctor", "Dr")
TITLE = (
    r"(?:Mr|Mrs|Miss|Ms|Dr|Doctor|Sir|Lord|Lady|King|Queen|Prince|Princess|Count|Countess|Duke|Duchess|Baron|Father|"
    r"Mother|Uncle|Aunt|Brother|Sister|Madame|Mademoiselle|Monsieur|Colonel|Col|Captain|Capt|Major|General|Sergeant|"
    r"Inspector|Professor|Judge|Reverend|Rev|Squire|Master)\b\.?"
)
WORD = r"(?:St\. )?(?!St\.)[A-Z][a-zA-Zé]*[a-zé](?:-[A-Z][a-z]+)?"
NAME = rf"(?:{TITLE} (?:{WORD})(?: {WORD}){{0,2}}|{WORD}(?: (?:de |von |van )?{WORD}){{0,2}})"
NOUN_STOP = (
    r"(?=[,.;:!?—-]|$| (?:with|in|as|at|from|to|and|when|who|which|that|of|on|by|for|after|before|had|was|"
    r"\w+ly|\w+ing)\b)"
)
THING = rf"(?:the|our|my|his|her|their|a|an|this|that|another)(?: [a-z]+(?:-[a-z]+)*){{1,3}}?{NOUN_STOP}"
PRONOUN = r"(?:[Hh]e|[Ss]he|I|[Tt]hey|[Ww]e|[Ii]t)\b"
WHO = rf"(?P<who>{PRONOUN}|{NAME}|{THING})"
TAGS = [
    re.compile(rf"^(?:and |then |so )?(?:{SPEAK}) {WHO}"),
    re.compile(rf"^{WHO}(?:,[^,]{{1,60}},)? (?:(?:had|then|only|at last|\w+ly) )*(?:{SPEAK})\b"),
]
UPPER_THING = re.compile(
    r"^(?P<who>(?:The|Our|My|His|Her|An?|This|That|Another)(?: [a-z]+(?:-[a-z]+)*){1,4}?)"
    r"(?= (?:\w+ed|was|had|\w+ly|rose|took|gave|shook|sat|stood|threw|sprang|came|ran|looked|drew|put|broke|fell|"
    r"held|spoke|made|wrung|laid|burst|turned)\b)"
)
SUBJECT = re.compile(
    rf"^(?:(?:And|But|Then|So|As|When|Again|Presently|Suddenly|Here|Now|At this|At last),? )*"
    rf"(?P<who>{PRONOUN}|{NAME})(?!['’]s\b)"
)
NOT_NAMES_TEXT = """
The A An And But Then So As When If Yes No Oh Ah Well Now Why What How Where Who This That These Those There
Here It He She I They We You My Your His Her Our Their In On At By For From With Of To Not Nothing Perhaps
Indeed Pray Come Good Very Quite Is Are Was Were Do Did Does Have Has Had Can Could Will Would Shall Should
May Might Must Let Never Ever All Some Any One Two Three Thank Thanks God Heaven Heavens Lord Sir Madam
Certainly Precisely Exactly Really Surely Hum Ha Hullo Hello Only Just Alas Excellent Capital Great Dear Again
Also Still Even After Before Because Since Until While Both Either Neither Or Nor Tell Give Take See Look
Listen Stop Go Sit Stand Wait Ask Read Please Excuse Pardon Poor Old Little Young Dr Mr Mrs Miss Street Monday
Tuesday Wednesday Thursday Friday Saturday Sunday January February March April June July August September
October November December English French German American Christmas Majesty Holiness Highness Too Which Such
Each Every Anything Something Suddenly Once Presently
"""
NOT_NAMES = frozenset(NOT_NAMES_TEXT.split())
FEMALE_NOUN = re.compile(
    r"\b(?:lady|woman|girl|maid|wife|mother|sister|daughter|housekeeper|landlady|widow|queen|princess|lass|nurse|governess|"
    r"heroine|aunt|niece|bride|mistress|hostess|duchess|countess)\b",
    re.IGNORECASE,
)
MALE_NOUN = re.compile(
    r"\b(?:man|gentleman|fellow|boy|husband|father|brother|son|king|prince|inspector|constable|landlord|sergeant|lad|uncle|"
    r"baronet|nobleman|coachman|salesman|tradesman|host|banker|pawnbroker|colonel|captain|duke|count|engineer|policeman)\b",
    re.IGNORECASE,
)
PERSON_NOUN = re.compile(
    rf"{FEMALE_NOUN.pattern}|{MALE_NOUN.pattern}|\b(?:visitor|client|companion|friend|stranger|patient|doctor|clerk|assistant|"
    r"driver|guard|prisoner|servant|butler|porter|detective|agent|official|guest|neighbour|soldier|officer|sailor|other)$",
    re.IGNORECASE,
)
VOCATIVE = re.compile(
    rf"(?:^|(?:[,!?;]|(?<!Mr)(?<!Mrs)(?<!Dr)(?<!St)\.)['’]? (?:[Mm]y dear |dear |old |friend )?"
    r"|^(?:[A-Z][a-z]+[,!] )?(?:[Mm]y dear |[Oo]h, |[Aa]h, )|[Mm]y dear )"
    rf"(?P<name>{NAME})(?=[,.!?;:]|$)"
)
SELF = re.compile(rf"\b(?:[Mm]y name is|I am called|I am) (?P<name>{NAME})")


def title_gender(name: str) -> str:
    title = name.split()[0].rstrip(".").lower() if " " in name else ""
    return "m" if title in MALE else "f" if title in FEMALE else ""


def tag(gap: str) -> str:
    """Whom a tag ("said Holmes", "he answered") at the begin of narration names, or ""."""
    for pattern in TAGS:
        if match := pattern.match(gap[:1].lower() + gap[1:] if gap[:2] in ("He", "Sh", "Th", "Ou", "My") else gap):
            return match["who"]
    return ""


def without_quotes(text: str) -> str:
    """A speech without what it quotes itself."""
    return re.sub(r"(?<![A-Za-z])['‘](?=[A-Z\w]).*?(?<=[,.!?-])['’](?![A-Za-z])", "…", text)
