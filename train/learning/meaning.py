"""Learns which texts mean the same: a projection under which the wordings of one matter are near to one another.

Two wordings of a matter are pulled together, and away from all others that are drawn with them (InfoNCE: van den Oord
et al., "Representation Learning with Contrastive Predictive Coding", 2018). The base model stays as it is.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.nn.functional import cross_entropy, dropout, normalize
from tqdm import tqdm

from roleplay.engine.decoder import Decoder
from roleplay.engine.states import mean_states as states_of
from roleplay.text.meaning import Floats, Meaning, States, ids_of, unit
from roleplay.text.prompts import PromptEncoder
from roleplay.text.retrieval import Known, known
from roleplay.text.rows import Row
from roleplay.weights.adapters import LookedUp
from roleplay.weights.base_models import BaseModel

SIZE = 48  # of a vector
DEPTH = 0.4  # share of the layers that a text goes through
TOGETHER = 64  # texts in a forward pass
STEPS, MATTERS, RATE = 500, 512, 1e-3  # of the training: steps, matters drawn at each, Adam's rate
TEMPERATURE = 0.07
DROPPED = 0.1  # share of the states' numbers that each step leaves out


def look_up(base: BaseModel, rows: Sequence[Row], seed: int) -> LookedUp:
    """What an adapter of `base` can look up of these rows, and what that means to it before anything is attached."""
    turns, plain = tuple(known(rows)), PromptEncoder(base.tokenizer)
    states, layers = partial(states_of, Decoder(base.model)), len(base.model.model.layers)
    return LookedUp(turns, learn_meaning(turns, plain, states, layers, seed))


def mean_states(texts: Sequence[str], encoder: PromptEncoder, states: States, depth: int) -> Floats:
    """(texts, hidden), those of one length beside one another."""
    ids = [ids_of(encoder, text) for text in texts]
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    found = np.empty(0, np.float32)
    with tqdm(total=len(ids), desc="meaning", unit="text", mininterval=1) as bar:
        for start in range(0, len(order), TOGETHER):
            part = order[start : start + TOGETHER]
            computed = states([ids[number] for number in part], depth)
            found = found if len(found) else np.empty((len(ids), computed.shape[1]), np.float32)
            found[part] = computed
            bar.update(len(part))
    return found


def learn_meaning(
    known: Sequence[Known], encoder: PromptEncoder, states: States, layers: int, seed: int
) -> Meaning | None:
    """The projection and the vectors of what users say in `known`; None where fewer than two matters have two wordings,
    for then there is nothing to learn it from."""
    texts = list(dict.fromkeys(one.turn[0] for one in known))
    numbers = {text: number for number, text in enumerate(texts)}
    matters = defaultdict[str, dict[int, None]](dict)
    for one in known:
        matters[one.matter][numbers[one.turn[0]]] = None
    several = [list(wordings) for wordings in matters.values() if len(wordings) > 1]
    if len(several) < 2:
        return None
    depth = max(1, round(DEPTH * layers))
    found = mean_states(texts, encoder, states, depth)
    center, spread = found.mean(0), found.std(0) + 1e-6
    projection = _project(torch.from_numpy((found - center) / spread), several, seed) / spread[:, None]
    vectors = unit((found - center) @ projection)
    return Meaning(depth, center, projection, vectors[[numbers[one.turn[0]] for one in known]])


def _project(states: torch.Tensor, several: Sequence[Sequence[int]], seed: int) -> Floats:
    """Learn it from `states` (texts, hidden) of mean 0 and spread 1, and the numbers of each matter's texts."""
    lot, dice = random.Random(seed), torch.Generator().manual_seed(seed)
    hidden, count = states.shape[1], min(MATTERS, len(several))
    projection = (torch.randn(hidden, SIZE, generator=dice) / hidden**0.5).requires_grad_()
    optimizer, own = torch.optim.Adam([projection], lr=RATE), torch.arange(count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(STEPS):
            pairs = [lot.sample(wordings, 2) for wordings in lot.sample(several, count)]
            drawn = (states[list(side)] for side in zip(*pairs, strict=True))
            one, other = (normalize(dropout(side, DROPPED) @ projection) for side in drawn)
            alike = one @ other.T / TEMPERATURE
            optimizer.zero_grad()
            (cross_entropy(alike, own) + cross_entropy(alike.T, own)).backward()
            optimizer.step()
    return projection.detach().numpy()
