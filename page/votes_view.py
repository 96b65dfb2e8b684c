"""The votes on an adapter as HTML: beside the base model, beside others, and the ranking of those with votes enough."""

from collections.abc import Collection, Sequence
from html import escape

from dataset.preferences import review, vote_pairs
from page.words import WORDS
from roleplay.errors import DataError
from roleplay.results import ranking
from roleplay.results.ranking import Player
from roleplay.results.tally import Tally, score
from roleplay.results.votes import Vote
from roleplay.results.wording import TEXTS
from roleplay.text.pairs import FEWEST, HELD_OUT, split_pairs
from roleplay.weights.training_rows import SEED


def votes_html(votes: Sequence[Vote], own: Player, language: str) -> str:
    """A sentence on an adapter beside the base model, one on every other pair that its name was in, and the ranking.

    Where votes on other checkpoints of that name were cast, the first sentence says which one it is on.
    """
    words, met = TEXTS[language], ranking.pairs(votes)
    players = ranking.players_of(met, own)
    first, name = score(language, met.get((own, Player()), Tally())), ranking.name_of(own, language, players)
    told = [first if name == own.adapter else words["on_checkpoint"].format(name=name, told=first)]
    told += ranking.sentences(met, own, language)
    html = "".join(f"<p>{escape(sentence)}</p>" for sentence in told)
    if len(ranking.players_of(met)) < 3:
        return html
    ranked = ranking.ranking(met)
    rows = "".join(f"<li>{escape(_row(one, language, players))}</li>" for one in ranked)
    title = escape(words["ranking" if ranked else "ranking_early"])
    return f"{html}<p>{title}</p><ol>{rows}</ol>" if ranked else f"{html}<p>{title}</p>"


def _row(one: ranking.Ranked, language: str, players: Collection[Player]) -> str:
    share = {key: f"{getattr(one.share, key):.0%}" for key in ("value", "low", "high")}
    return f"{ranking.name_of(one.player, language, players)}: {TEXTS[language]['figure'].format(**share)}"


def lesson_html(votes: Sequence[Vote], adapter: str, folder: str, language: str) -> str:
    """What `train.prefer` could learn from all votes in `folder`, and the command where that is enough."""
    try:
        usable = review(vote_pairs(votes))[0]
    except DataError as error:
        return f"<p>{escape(str(error))}</p>"
    told = f"<p>{WORDS[language]['votes_usable'].format(usable=len(usable), least=FEWEST)}</p>"
    if len(usable) < FEWEST or "/" in adapter:
        return told
    try:
        split_pairs(usable, HELD_OUT, SEED)
    except DataError:
        return told
    command = f"python -m train.prefer --adapter adapters/{adapter} --votes {folder} --name {adapter}-voted"
    return f"{told}<p><code>{escape(command)}</code></p>"
