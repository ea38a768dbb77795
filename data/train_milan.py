"""Train MILAN on the concept world: `python data/train_milan.py`.

The last step of `make world`, since the encoder is the world's convolutional network. For every
region of some thousand pictures a bank holds the features pooled over the exact pixels, over a blob
that resembles a neuron's thresholded map, and over the whole picture. A training example is 15 rows
of the bank that share a concept, some of them replaced by random rows, since a neuron's exemplars
do not all agree; its description is one of the concept's phrases.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from wwwlib.baselines.common import layer_maps
from wwwlib.baselines.milan.networks import (
    END,
    MARKS,
    START,
    Decoder,
    Describer,
    LanguageModel,
    beam_search,
    load,
    pool,
    save,
)
from wwwlib.store import file_digest
from wwwlib.targets import Target
from wwwlib.targets import load as load_target
from wwwlib.world import DATA, Scene, preprocess, render, sample
from wwwlib.world.painting import SIZE
from wwwlib.world.vocabulary import (
    CATEGORIES,
    CATEGORY,
    CLASSES,
    GROUNDS,
    PARTS,
    SYNONYMS,
    article,
)

ENCODER, STAGES = "world/conv", ("layer1", "layer2", "layer3", "layer4")
# (number of pictures, seed of the world); no other training uses these seeds.
PICTURES, UNSEEN = (7_200, 300), (1_200, 400)
K, LENGTH = 15, 8  # exemplars of a set; words of a description, its end included
STEPS, BATCH, RATE = 5_000, 128, 2e-3
LEAST = 20  # regions of a concept; rarer concepts are left out
OUTLIERS = 7  # largest number of random rows in a set
MIN_PIXELS = 10  # smaller regions vanish on the grid of any layer
GRIDS = (8, 8, 16, 32)  # rows of the activation maps of the world's networks
EXACT, BLOB, WHOLE = range(3)  # the masks of a row of the bank
# Probabilities of the category of a set, and of whole pictures by category.
SHARES = {"object": 0.24, "part": 0.16, "colour": 0.1, "texture": 0.1, "material": 0.1,
          "scene": 0.1, "pair": 0.2}  # fmt: skip
WHOLES = {"object": 0.4, "scene": 0.4, "pair": 0.1}
_PLURALS = {"fish": "fish", "leaf": "leaves", "grass": "grass"}

Key = tuple[str, ...]  # one concept or two, the noun whose pixels are meant last


# Regions and their descriptions --------------------------------------------------------------


def regions(scene: Scene, masks: Mapping[str, np.ndarray]) -> dict[Key, np.ndarray]:
    """Return the regions of a picture that a neuron may respond to.

    A region holds the pixels of one concept (roofs, snow, red), or of a noun that another concept
    qualifies (red roofs, boats at sea, wheels of cars). MILAN is trained on sets of such regions
    and `phrases` for them.

    Parameters
    ----------
    scene : Scene
    masks : mapping of str to ndarray of bool, shape (SIZE, SIZE)
        Those of `render(scene)`.

    Returns
    -------
    dict of tuple of str to ndarray of bool
        For each key its pixels, at least `MIN_PIXELS` of them. A pair is (colour, noun) where most
        of the noun's pixels have that colour, (finish, class), (scene, class) or (class, part).
    """
    large = {word: mask for word, mask in masks.items() if mask.sum() >= MIN_PIXELS}
    found = {(word,): mask for word, mask in large.items()}
    if scene.subject in large:
        subject = large[scene.subject]
        found[scene.scene, scene.subject] = subject
        if scene.finish != "plain":
            found[scene.finish, scene.subject] = subject
        parts = [part for part in scene.parts if part in large and part in PARTS]
        found |= {(scene.subject, part): large[part] for part in parts}
    nouns = [word for word in large if CATEGORY[word] in ("object", "part")]
    for colour in set(CATEGORIES["colour"]) & large.keys():
        for noun in nouns:
            if (large[noun] & large[colour]).sum() > large[noun].sum() / 2:
                found[colour, noun] = large[noun]
    return dict(sorted(found.items()))


def simulated_maps(masks: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Distort exact masks as a neuron's thresholded activation map would.

    Each mask is averaged on a coarse grid, cells are dimmed at random, and what exceeds a random
    share of the maximum is kept after enlarging.

    Parameters
    ----------
    masks : ndarray of bool, shape (R, SIZE, SIZE)
        None of them empty.
    rng : RandomState

    Returns
    -------
    ndarray of bool, shape (R, SIZE, SIZE)
        None of them empty.
    """
    cells = GRIDS[rng.randint(len(GRIDS))]
    grid = masks.reshape(len(masks), cells, SIZE // cells, cells, SIZE // cells).mean((2, 4))
    grid = grid * rng.uniform(0.3, 1, grid.shape)
    enlarge = _interpolation(cells)
    blobs = enlarge @ grid @ enlarge.T
    share = rng.uniform(0.25, 0.85, (len(masks), 1, 1))
    return blobs >= share * blobs.max((1, 2), keepdims=True)


@cache
def _interpolation(cells: int) -> np.ndarray:
    """Return the (SIZE, cells) matrix that enlarges one axis of a grid linearly."""
    centres = (np.arange(SIZE) + 0.5) * cells / SIZE - 0.5
    return np.stack([np.interp(centres, np.arange(cells), row) for row in np.eye(cells)], 1)


def plural(noun):
    """Return the plural of a noun of the world."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return noun + ("es" if noun.endswith(("s", "x", "sh", "ch")) else "s")


def category(key: Key) -> str:
    """Return the category of a single concept, or "pair" for two concepts."""
    return CATEGORY[key[0]] if len(key) == 1 else "pair"


def phrases(key: Key) -> tuple[str, ...]:
    """Return equally likely descriptions of a set of image regions (see `regions`)."""
    noun = key[-1]
    if len(key) == 2:
        return _pair(*key)
    if noun in CLASSES:
        return tuple(text for name in SYNONYMS[noun] for text in (plural(name), article(name)))
    if noun in GROUNDS:
        return noun, f"{noun} on the ground"
    return {
        "object": (plural(noun), article(noun)),
        "part": (plural(noun), article(noun)),
        "colour": (f"{noun} things", f"the colour {noun}"),
        "texture": (f"{noun} texture", f"{noun} things"),
        "material": (f"things of {noun}", f"texture of {noun}"),
        "scene": (f"{noun} scenes", f"the {noun}"),
    }[CATEGORY[noun]]


def _pair(first, noun):
    if CATEGORY[first] in ("colour", "texture"):
        return f"{first} {plural(noun)}", article(f"{first} {noun}")
    if CATEGORY[first] == "material":
        return f"{plural(noun)} of {first}", f"{article(noun)} of {first}"
    if CATEGORY[first] == "scene":
        return f"{plural(noun)} in {first} scenes", f"{article(noun)} in a {first} scene"
    return f"{plural(noun)} of {plural(first)}", f"the {noun} of {article(first)}"


# Training sets -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bank:
    """Features of regions, and which of them share a concept.

    Attributes
    ----------
    features : Tensor of float16, shape (rows, 3, F)
        Of the exact region, of a blob, and of the whole picture.
    rows : dict of key to Tensor of int64
        The rows of each concept, or pair of them.
    """

    features: Tensor
    rows: dict[Key, Tensor]


def draw(seed: int, index: int) -> tuple[Image.Image, list[Key], np.ndarray]:
    """Return a picture, its keys, and their masks and blobs (keys, 2, 64, 64)."""
    scene = sample(index, seed)
    picture = render(scene)
    found = regions(scene, picture.masks)
    exact = np.stack(list(found.values()))
    blobs = simulated_maps(exact, np.random.RandomState([seed, index, 3]))
    return picture.image, list(found), np.stack([exact, blobs], 1)


def fill(
    encoder: Target,
    stages: Sequence[str],
    pictures: int,
    seed: int,
    least: int = LEAST,
    apply: Callable = map,
) -> Bank:
    """Render pictures, and pool the features of their regions.

    Parameters
    ----------
    encoder : Target
    stages : sequence of str
    pictures, seed : int
        Number of pictures, and seed of the world.
    least : int
        Keys with fewer regions are left out.
    apply : callable
        ``map``, or that of a pool of processes.

    Returns
    -------
    Bank
    """
    features, owners, to_tensor = [], [], preprocess()
    found = apply(partial(draw, seed), range(pictures))
    for image, keys, masks in tqdm(found, "regions", pictures, unit="picture"):
        parts = np.concatenate([masks.reshape(-1, *masks.shape[2:]), np.ones_like(masks[:1, 0])])
        maps = layer_maps(encoder, stages, to_tensor(image)[None])
        pooled = pool(maps.values(), torch.from_numpy(parts)[None])[0]
        whole = pooled[-1:].expand(len(keys), 1, -1)
        features.append(torch.cat([pooled[:-1].unflatten(0, (-1, 2)), whole], 1).half())
        owners += keys
    rows: dict[Key, list[int]] = {}
    for row, key in enumerate(owners):
        rows.setdefault(key, []).append(row)
    kept = {key: torch.tensor(own) for key, own in sorted(rows.items()) if len(own) >= least}
    return Bank(torch.cat(features), kept)


def vocabulary(bank: Bank) -> tuple[str, ...]:
    """Return `MARKS`, and the words of all phrases in alphabetical order."""
    texts = (text for key in bank.rows for text in phrases(key))
    return (*MARKS, *sorted({word for text in texts for word in text.split()}))


class Sets:
    """Draws training examples: exemplar sets and their descriptions.

    Parameters
    ----------
    bank : Bank
    words : sequence of str
        The vocabulary.
    seed : int
        Equal seeds give equal sets.
    """

    def __init__(self, bank: Bank, words: Sequence[str], seed: int = 0) -> None:
        self.bank, self.rng = bank, np.random.RandomState(seed)
        self.number = {word: i for i, word in enumerate(words)}
        self.of = {name: [key for key in bank.rows if category(key) == name] for name in SHARES}
        shares = np.array([share if self.of[name] else 0 for name, share in SHARES.items()])
        self.shares = shares / shares.sum()

    def key(self) -> Key:
        """Draw a concept, its category first, since pairs are far more numerous than others."""
        keys = self.of[list(SHARES)[self.rng.choice(len(self.shares), p=self.shares)]]
        return keys[self.rng.randint(len(keys))]

    def tokens(self, key: Key) -> list[int]:
        """Draw one of the phrases for a concept, as numbers of words, padded with `END`."""
        texts = phrases(key)
        tokens = [self.number[word] for word in texts[self.rng.randint(len(texts))].split()]
        return tokens + [END] * (LENGTH - len(tokens))

    def exemplars(self, key: Key) -> Tensor:
        """Draw features (15, F) of regions of a concept, some of them outliers."""
        own = self.bank.rows[key]
        rows = own[self.rng.randint(len(own), size=K)]
        count, total = self.rng.randint(OUTLIERS + 1), len(self.bank.features)
        rows[:count] = torch.from_numpy(self.rng.randint(total, size=count))
        whole = self.rng.random_sample() < WHOLES.get(category(key), 0.05)
        view = WHOLE if whole else (EXACT, BLOB, BLOB)[self.rng.randint(3)]
        return self.bank.features[rows[torch.from_numpy(self.rng.permutation(K))], view].float()

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return features (size, 15, F) and tokens (size, LENGTH)."""
        keys = [self.key() for _ in range(size)]
        features = torch.stack([self.exemplars(key) for key in keys])
        return features, torch.tensor([self.tokens(key) for key in keys])


def loss(step, state, tokens: Tensor, *memory: Tensor) -> Tensor:
    """Return the mean negative log-probability per word."""
    word, open_ = torch.full_like(tokens[:, 0], START), torch.ones(len(tokens), dtype=torch.bool)
    total, count = 0.0, 0
    for following in tokens.unbind(1):
        log_p, state = step(word, state, *memory)
        total = total + functional.nll_loss(log_p[open_], following[open_], reduction="sum")
        count += int(open_.sum())
        open_, word = open_ & (following != END), following
        if not open_.any():
            break
    return total / count


def fit(sets: Sets, decoder: Decoder, language: LanguageModel, steps: int, rate: float) -> None:
    """Fit both networks by maximum likelihood on the same descriptions."""
    first, _ = sets.batch(512)
    decoder.mean.copy_(first.mean((0, 1)))
    decoder.scale.copy_(first.std((0, 1)).clamp_min(1e-3))
    networks = nn.ModuleList([decoder, language]).train()
    optimiser = torch.optim.AdamW(networks.parameters(), rate, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    with tqdm(range(steps), "MILAN", unit="step") as bar:
        for _ in bar:
            features, tokens = sets.batch(BATCH)
            memory, state = decoder.begin(features)
            given = loss(decoder.step, state, tokens, memory)
            prior = loss(language.step, language.begin(len(tokens)), tokens)
            optimiser.zero_grad()
            (given + prior).backward()
            nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
            optimiser.step()
            cycle.step()
            bar.set_postfix(decoder=f"{given.item():.3f}", language=f"{prior.item():.3f}")


def train(
    pictures: int = PICTURES[0], steps: int = STEPS, seed: int = 0, apply: Callable = map
) -> Describer:
    """Train a describer of the concept world.

    Parameters
    ----------
    pictures, steps : int
        Number of training pictures and of optimiser steps.
    seed : int
        Equal seeds give equal describers.
    apply : callable
        As in `fill`.

    Returns
    -------
    Describer
    """
    torch.manual_seed(seed)
    encoder = load_target(ENCODER)
    bank = fill(encoder, STAGES, pictures, PICTURES[1], apply=apply)
    words = vocabulary(bank)
    decoder = Decoder(bank.features.shape[2], len(words))
    language = LanguageModel(len(words))
    fit(Sets(bank, words, seed), decoder, language, steps, RATE)
    return Describer(encoder, STAGES, decoder, language, words)


@torch.inference_mode()
def accuracy(describer: Describer, sets: Sets, count: int = 1_000) -> float:
    """Return the share of sets whose most probable description is a phrase of their key."""
    decoder, correct = describer.decoder, 0
    for _ in range(count):
        key = sets.key()
        memory, state = decoder.begin(sets.exemplars(key)[None])
        tokens, _ = beam_search(decoder.step, state, memory, 10, LENGTH)
        correct += describer.text(tokens[0, 0].tolist()) in phrases(key)
    return correct / count


def main() -> None:
    """Train, save, evaluate the saved describer on unseen pictures, and record the result."""
    torch.set_num_threads(1)  # the last bits depend on the number of threads
    start, path = time.monotonic(), DATA / "milan.safetensors"
    # A fork of a process with threads can wait for ever.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as executor:
        apply = partial(executor.map, chunksize=30)
        save(train(apply=apply), path)
        describer = load(path)
        bank = fill(describer.encoder, describer.stages, *UNSEEN, least=15, apply=apply)
    entry = {
        "sets described correctly": accuracy(describer, Sets(bank, describer.vocabulary, seed=1)),
        "sha256": file_digest(path),
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    record = DATA / "training.json"
    entries = {**json.loads(record.read_text()), "milan": entry}
    record.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
    print(f"{record}: milan")


if __name__ == "__main__":
    main()
