"""Learns which texts mean the same: a network under which the wordings of one matter are near to one another.

Two wordings of a matter are pulled together, and away from all others that are drawn with them (InfoNCE: van den Oord
et al., "Representation Learning with Contrastive Predictive Coding", 2018). The base model stays as it is.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from math import log

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout, normalize
from tqdm import tqdm

from roleplay.engine.decoder import Decoder
from roleplay.engine.states import features as features_of
from roleplay.text.meaning import Features, Floats, Meaning, Network, Rarity, Tokens, numbered
from roleplay.text.prompts import PromptEncoder
from roleplay.text.retrieval import Known, known
from roleplay.text.rows import Row
from roleplay.weights.adapters import LookedUp
from roleplay.weights.base_models import BaseModel

SIZE, WIDTH = 40, 256  # of a vector, and of the network's hidden layer
DEPTH = 0.4  # share of the layers that a text goes through
TOGETHER, SLICE = 64, 4096  # texts in a forward pass of the base model, and of the network
COMMON = 0.5  # what the commonest tokens count at least
STEPS, MATTERS = 600, 512  # of the training, and matters drawn at each
RATE, DECAY, TEMPERATURE = 1e-3, 0.01, 0.07  # AdamW's rate and weight decay; of the softmax over cosines
DROPPED = 0.1, 0.3  # share of the features, and of the hidden layer, that each step leaves out


def look_up(base: BaseModel, rows: Sequence[Row], seed: int) -> LookedUp:
    """What an adapter of `base` can look up of these rows, and what that means to it before anything is attached."""
    turns, plain = tuple(known(rows)), PromptEncoder(base.tokenizer)
    features, layers = partial(features_of, Decoder(base.model)), len(base.model.model.layers)
    return LookedUp(turns, learn_meaning(turns, plain, features, layers, seed))


def find_all(texts: Sequence[Tokens], features: Features, depth: int) -> Floats:
    """The features of many texts (texts, features), those of one length computed beside one another."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number].ids))
    found = np.empty(0, np.float32)
    with tqdm(total=len(texts), desc="meaning", unit="text", mininterval=1) as bar:
        for start in range(0, len(order), TOGETHER):
            part = order[start : start + TOGETHER]
            computed = features([texts[number] for number in part], depth)
            found = found if len(found) else np.empty((len(texts), computed.shape[1]), np.float32)
            found[part] = computed
            bar.update(len(part))
    return found


def rarity_of(texts: Sequence[str], encoder: PromptEncoder) -> Rarity:
    """Of every token the logarithm of how many texts there are for one that has it, `COMMON` at least."""
    counts = Counter(token for text in texts for token in set(encoder.encode(text.strip())))
    return Rarity({token: max(COMMON, log(len(texts) / count)) for token, count in counts.items()})


def learn_meaning(
    known: Sequence[Known], encoder: PromptEncoder, features: Features, layers: int, seed: int
) -> Meaning | None:
    """The network and the vectors of what users say in `known`; None where fewer than two matters have two wordings,
    for then there is nothing to learn it from."""
    texts, text_of = numbered([one.turn[0] for one in known])
    matters = defaultdict[str, dict[int, None]](dict)
    for one, number in zip(known, text_of.tolist(), strict=True):
        matters[one.matter][number] = None
    several = [list(wordings) for wordings in matters.values() if len(wordings) > 1]
    if len(several) < 2:
        return None
    depth, rarity = max(1, round(DEPTH * layers)), rarity_of(texts, encoder)
    found = find_all([rarity.tokens(encoder, text) for text in texts], features, depth)
    network = learn_network(found, several, seed)
    vectors = [network.vectors(found[start : start + SLICE]) for start in range(0, len(found), SLICE)]
    return Meaning(depth, rarity, network, np.concatenate(vectors), text_of)


def learn_network(found: Floats, several: Sequence[Sequence[int]], seed: int) -> Network:
    """It is learned from features (texts, features) and the numbers of each matter's texts."""
    center, deviation = found.mean(0), found.std(0) + 1e-6
    lot, count = random.Random(seed), min(MATTERS, len(several))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = nn.Linear(found.shape[1], SIZE, bias=False)
        inward, outward = nn.Linear(found.shape[1], WIDTH), nn.Linear(WIDTH, SIZE, bias=False)
        learnt = [linear.weight, inward.weight, inward.bias, outward.weight]
        optimizer = torch.optim.AdamW(learnt, lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        own = torch.arange(count)
        for _ in range(STEPS):
            pairs = [lot.sample(wordings, 2) for wordings in lot.sample(several, count)]
            sides = (torch.from_numpy((found[list(side)] - center) / deviation) for side in zip(*pairs, strict=True))
            drawn = (dropout(side, DROPPED[0]) for side in sides)
            one, other = (normalize(linear(x) + outward(dropout(inward(x).relu(), DROPPED[1]))) for x in drawn)
            alike = one @ other.T / TEMPERATURE
            optimizer.zero_grad()
            (cross_entropy(alike, own) + cross_entropy(alike.T, own)).backward()
            optimizer.step()
            schedule.step()
    return Network(center, deviation, *(values.detach().numpy() for values in learnt))
