"""Learns which texts mean the same: features under which the wordings of one matter are near to one another.

The first layers of a base model learn it by LoRA, and a linear map with them. Two wordings of a matter are pulled
together, and away from all others that are drawn with them (InfoNCE: van den Oord et al., "Representation Learning with
Contrastive Predictive Coding", 2018; of sentences: Gao et al., "SimCSE", 2021). The base model stays as it is.
"""

import copy
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil, log
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import nn
from torch.nn.functional import cross_entropy, dropout, normalize
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from roleplay.engine.decoder import Decoder
from roleplay.engine.states import reader_of
from roleplay.text.known import Known, known
from roleplay.text.meaning import Features, Floats, Kinds, Meaning, Projection, Rarity, Tokens, kinds_of, numbered
from roleplay.text.prompts import PromptEncoder
from roleplay.text.rows import Row
from roleplay.weights import base_models
from roleplay.weights.adapters import PROJECTIONS, LookedUp
from roleplay.weights.base_models import BaseModel
from roleplay.weights.meanings import lora_keys

SIZE = 40  # numbers of a vector
DEPTH = 0.4  # share of the layers that a text goes through
RANK, SCALING = 4, 2  # of LoRA
COMMON = 0.5  # what the commonest tokens count at least
STEPS, PAIRS, TIMES = 200, 128, 20  # at most: steps, pairs drawn at each, and times that a text is drawn in all
LONGEST = 24  # tokens of a text that are learned from
RATE, WARMUP, DECAY = 1e-3, 20, 0.01  # AdamW's rate, steps to reach it, weight decay
TEMPERATURE = 0.07  # of the softmax over cosines
DROPPED = 0.1  # share of the features that each step leaves out
SAMPLE = 512  # texts that features are standardised by
PARTS = 6  # into which a step's texts are cut by length: padding costs
TOGETHER = 64  # texts in a forward pass where nothing is learned
LOOSE = 0.003  # the inverse of how much the regression that tells fallbacks apart is held back


def look_up(base: BaseModel, rows: Sequence[Row], seed: int, learnt: Meaning | None = None) -> LookedUp:
    """What an adapter of `base` can look up of these rows, and what that means to it before anything is attached.

    With what was `learnt` of other rows the texts are only read. It takes minutes: whatever may be refused is to be
    refused before.
    """
    turns = tuple(known(rows))
    return LookedUp(turns, meaning_of(turns, base, learnt) if learnt else learn_meaning(turns, base, seed))


def learn_meaning(known: Sequence[Known], base: BaseModel, seed: int) -> Meaning | None:
    """What tells which of the messages in `known` a text is near to; None where fewer than two matters have two
    wordings, for then there is nothing to learn it from."""
    texts, text_of = numbered([one.turn[0] for one in known])
    matters = defaultdict[str, dict[int, None]](dict)
    for one, number in zip(known, text_of.tolist(), strict=True):
        if not one.fallback:  # its wordings have no matter in common
            matters[one.matter][number] = None
    several = [list(wordings) for wordings in matters.values() if len(wordings) > 1]
    if len(several) < 2:
        return None
    encoder, depth = PromptEncoder(base.tokenizer), max(1, round(DEPTH * len(base.model.model.layers)))
    rarity = rarity_of(texts, encoder)
    tokens = [rarity.tokens(encoder, text) for text in texts]
    lora, projection = learn_features(first_layers(base.model, depth), tokens, several, seed)
    base_models.release()  # for the training, which plans with what is free
    unread, no_kinds = np.empty((0, SIZE), np.float32), Kinds(np.empty((0, len(projection.center))), np.empty(0))
    learnt = Meaning(depth, lora, rarity, projection, unread, text_of, no_kinds, kinds_of(known))
    return meaning_of(known, base, learnt)


def meaning_of(known: Sequence[Known], base: BaseModel, learnt: Meaning) -> Meaning:
    """`learnt` with the vectors of the messages in `known`, and with what tells the fallbacks there apart."""
    texts, text_of = numbered([one.turn[0] for one in known])
    encoder, features = PromptEncoder(base.tokenizer), reader_of(Decoder(base.model), learnt)
    tokens, kind_of = [learnt.rarity.tokens(encoder, text) for text in texts], kinds_of(known)
    fallback = kind_of >= 0
    kinds = tell_apart([tokens[n] for n in text_of[fallback]], kind_of[fallback], features, learnt.projection)
    vectors = vectors_of(tokens, features, learnt.projection)
    return replace(learnt, vectors=vectors, text_of=text_of, kinds=kinds, kind_of=kind_of)


def tell_apart(texts: Sequence[Tokens], kind_of: NDArray[Any], features: Features, projection: Projection) -> Kinds:
    """What tells of which kind each of `texts` is; their kinds are numbered from 0."""
    from sklearn.linear_model import LogisticRegression  # a second, for few

    count = len(set(kind_of.tolist()))
    if count < 2:
        return Kinds(np.zeros((count, len(projection.center))), np.zeros(count))
    found = projection.standardised(all_of(texts, features, len(projection.center)))
    model = LogisticRegression(C=LOOSE, max_iter=500).fit(found, kind_of)
    weights, bias = model.coef_, model.intercept_
    return (
        Kinds(weights, bias) if count > 2 else Kinds(np.vstack([-weights, weights]) / 2, np.array([-1, 1]) * bias / 2)
    )


def rarity_of(texts: Sequence[str], encoder: PromptEncoder) -> Rarity:
    """Of every token the logarithm of how many texts there are for one that has it, `COMMON` at least."""
    counts = Counter(token for text in texts for token in set(encoder.encode(text.strip())))
    return Rarity({token: max(COMMON, log(len(texts) / count)) for token, count in counts.items()})


def by_length(texts: Sequence[Tokens]) -> list[int]:
    """The numbers of texts, the shortest first."""
    return sorted(range(len(texts)), key=lambda number: len(texts[number].ids))


def vectors_of(texts: Sequence[Tokens], features: Features, projection: Projection) -> Floats:
    """The vectors of many texts (texts, size)."""
    return all_of(texts, lambda part: projection.vectors(features(part)), len(projection.linear))


def all_of(texts: Sequence[Tokens], read: Features, size: int) -> Floats:
    """What `read` gives of many texts (texts, size), those of one length computed beside one another."""
    order = by_length(texts)
    found = np.empty((len(texts), size), np.float32)
    for start in tqdm(range(0, len(order), TOGETHER), desc="read", mininterval=1):
        part = order[start : start + TOGETHER]
        found[part] = read([texts[number] for number in part])
    return found


def first_layers(model: PreTrainedModel, depth: int) -> nn.Module:
    """The first layers of a causal language model, up to what comes out of the last; the weights are the same."""
    inner = model.model
    config = copy.deepcopy(inner.config)
    config.num_hidden_layers = depth
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:depth]
    with init_empty_weights(include_buffers=False):
        first = type(inner)(config)
    weights = inner.state_dict()
    first.load_state_dict({key: weights[key] for key in first.state_dict()}, assign=True)
    first.norm = nn.Identity()
    return first


def learn_features(
    layers: nn.Module, texts: Sequence[Tokens], several: Sequence[Sequence[int]], seed: int
) -> tuple[dict[str, Floats], Projection]:
    """What `layers` and a map of their features learn from the numbers of each matter's texts."""
    lot, count, device = random.Random(seed), min(PAIRS, len(several)), next(layers.parameters()).device
    steps = min(STEPS, ceil(TIMES * sum(map(len, several)) / (2 * count)))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        config = LoraConfig(r=RANK, lora_alpha=SCALING * RANK, target_modules=[*PROJECTIONS])
        learner: Any = get_peft_model(layers, config)
        with torch.no_grad():
            sample = learnable_features(
                learner, [texts[n] for n in lot.sample(range(len(texts)), min(SAMPLE, len(texts)))]
            )
        center, deviation = sample.mean(0), sample.std(0) + 1e-6
        linear = nn.Linear(len(center), SIZE, bias=False, device=device)

        def project(features: torch.Tensor) -> torch.Tensor:
            return linear(dropout((features - center) / deviation, DROPPED))

        matrices = [weight for weight in learner.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW([*matrices, linear.weight], lr=RATE, weight_decay=DECAY)
        schedule = get_cosine_schedule_with_warmup(optimizer, min(WARMUP, steps // 5), steps)
        targets = torch.arange(count, device=device)
        for _ in tqdm(range(steps), desc="meaning", mininterval=1):
            pairs = [lot.sample(wordings, 2) for wordings in lot.sample(several, count)]
            drawn = [texts[number] for side in zip(*pairs, strict=True) for number in side]
            one, other = learnable_vectors(learner, drawn, project).split(count)
            alike = one @ other.T / TEMPERATURE
            optimizer.zero_grad()
            (cross_entropy(alike, targets) + cross_entropy(alike.T, targets)).backward()
            nn.utils.clip_grad_norm_(matrices, 1.0)
            optimizer.step()
            schedule.step()
    return learnt_by(learner), Projection(*(x.detach().cpu().numpy() for x in (center, deviation, linear.weight)))


def learnable_features(learner: Any, texts: Sequence[Tokens]) -> torch.Tensor:
    """Features (texts, features) that can be learned by, of the beginning of each text; else those of
    `roleplay.engine.states.features`."""
    device = next(learner.parameters()).device
    ids, weights = (
        pad_sequence([torch.tensor(part[:LONGEST]) for part in parts], batch_first=True).to(device)
        for parts in zip(*texts, strict=True)
    )
    counts = (weights > 0).sum(1)  # the first token's is 0, and no other's
    there = torch.arange(ids.shape[1], device=device) <= counts[:, None]
    hidden = learner(input_ids=ids, attention_mask=there.long(), use_cache=False).last_hidden_state.float()
    mean = (weights[:, None] @ hidden)[:, 0] / weights.sum(1, keepdim=True)
    largest = hidden.masked_fill((weights == 0)[:, :, None], -torch.inf).amax(1)
    return torch.cat([mean, largest, hidden[torch.arange(len(hidden), device=device), counts]], 1)


def learnable_vectors(
    learner: Any, texts: Sequence[Tokens], project: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Vectors (texts, size) of length one; those of like length are computed beside one another."""
    order = torch.tensor(by_length(texts))
    parts = [[texts[n] for n in part.tolist()] for part in order.tensor_split(PARTS) if len(part)]
    if next(learner.parameters()).device.type == "cpu":
        found = [project(learnable_features(learner, part)) for part in parts]
    else:  # memory is dearer than time there
        found = [project(checkpoint(learnable_features, learner, part, use_reentrant=False)) for part in parts]
    return normalize(torch.cat(found)[order.argsort()])


def learnt_by(learner: Any) -> dict[str, Floats]:
    """The matrices of the layers, the scaling within each B."""
    weights = {
        key.replace("base_model.model.", "base_model.model.model."): values
        for key, values in get_peft_model_state_dict(learner).items()
    }
    return {
        key: (weights[key] * (SCALING if ".lora_B." in key else 1)).float().cpu().numpy()
        for key in lora_keys(learner.config.num_hidden_layers)
    }
