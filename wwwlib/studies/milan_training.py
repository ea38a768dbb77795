"""Train MILAN on the concept world: `python -m wwwlib.studies.milan_training`.

First a bank is filled: for every region of some thousand pictures the masked features of its exact
pixels, of a blob such as a neuron's map makes of it, and of its whole picture. A set for training
is then 15 rows of the bank that share a concept, some of them replaced by strangers, since no
neuron's exemplars agree in everything; its description is one of the concept's phrases.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from wwwlib.baselines.milan.describer import MARKS, Describer, assemble, load, save
from wwwlib.baselines.milan.features import pooled, see
from wwwlib.baselines.milan.networks import END, START, Decoder, LanguageModel
from wwwlib.baselines.milan.search import beam_search
from wwwlib.store import file_digest
from wwwlib.targets import Target
from wwwlib.targets import load as load_target
from wwwlib.world import DATA, preprocess, render, sample
from wwwlib.world.regions import Key, as_seen, category, phrases, regions

ENCODER, STAGES = "world/conv", ("layer1", "layer2", "layer3", "layer4")
# (how many pictures, of which world); neither is seen by any other training.
PICTURES, UNSEEN = (7_200, 300), (1_200, 400)
K, LENGTH = 15, 8  # exemplars of a set; most words of a description, its end among them
STEPS, BATCH, RATE = 5_000, 128, 2e-3
LEAST = 20  # regions of a concept; rarer ones teach nothing
STRANGERS = 7  # of the exemplars, the most that do not belong
EXACT, SEEN, WHOLE = range(3)  # what a row of the bank shows of its picture
# How often a set shares what category of concept, and how often it shows whole pictures.
SHARES = {"object": 0.24, "part": 0.16, "colour": 0.1, "texture": 0.1, "material": 0.1,
          "scene": 0.1, "pair": 0.2}  # fmt: skip
WHOLES = {"object": 0.4, "scene": 0.4, "pair": 0.1}


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


def drawn(seed: int, index: int) -> tuple[Image.Image, list[Key], np.ndarray]:
    """Return a picture, its keys, and their masks and blobs (keys, 2, 64, 64)."""
    scene = sample(index, seed)
    picture = render(scene)
    found = regions(scene, picture.masks)
    exact = np.stack(list(found.values()))
    blobs = as_seen(exact, np.random.RandomState([seed, index, 3]))
    return picture.image, list(found), np.stack([exact, blobs], 1)


def fill(
    encoder: Target, stages: Sequence[str], pictures: int, seed: int, least: int = LEAST
) -> Bank:
    """Draw pictures on all cores, and pool the features of their regions.

    Parameters
    ----------
    encoder : Target
    stages : sequence of str
    pictures, seed : int
        How many, of which world.
    least : int
        A key with fewer regions is left out.

    Returns
    -------
    Bank
    """
    features, owners, look = [], [], preprocess()
    with ProcessPoolExecutor() as pool:
        found = pool.map(partial(drawn, seed), range(pictures), chunksize=30)
        for image, keys, masks in tqdm(found, "regions", pictures, unit="picture"):
            parts = np.concatenate(
                [masks.reshape(-1, *masks.shape[2:]), np.ones_like(masks[:1, 0])]
            )
            maps = see(encoder, stages, look(image)[None])
            told = pooled(maps, torch.from_numpy(parts)[None])
            whole = told[0, -1:].expand(len(keys), 1, -1)
            features.append(torch.cat([told[0, :-1].unflatten(0, (-1, 2)), whole], 1).half())
            owners += keys
    rows: dict[Key, list[int]] = {}
    for row, key in enumerate(owners):
        rows.setdefault(key, []).append(row)
    kept = {key: torch.tensor(own) for key, own in sorted(rows.items()) if len(own) >= least}
    return Bank(torch.cat(features), kept)


def vocabulary(bank: Bank) -> tuple[str, ...]:
    """Return both marks, and all words of all phrases in alphabetical order."""
    texts = (text for key in bank.rows for text in phrases(key))
    return (*MARKS, *sorted({word for text in texts for word in text.split()}))


class Sets:
    """An endless supply of exemplar sets and their descriptions.

    Parameters
    ----------
    bank : Bank
    words : sequence of str
        The vocabulary.
    seed : int
        Equal seeds, equal sets.
    """

    def __init__(self, bank: Bank, words: Sequence[str], seed: int = 0) -> None:
        self.bank, self.rng = bank, np.random.RandomState(seed)
        self.number = {word: i for i, word in enumerate(words)}
        self.of = {name: [key for key in bank.rows if category(key) == name] for name in SHARES}
        shares = np.array([share if self.of[name] else 0 for name, share in SHARES.items()])
        self.shares = shares / shares.sum()

    def key(self) -> Key:
        """Draw a concept: its category first, so that the many pairs do not drown the rest."""
        keys = self.of[list(SHARES)[self.rng.choice(len(self.shares), p=self.shares)]]
        return keys[self.rng.randint(len(keys))]

    def tokens(self, key: Key) -> list[int]:
        """Draw one of the phrases for a concept, as words by number, ended and filled up."""
        texts = phrases(key)
        spoken = [self.number[word] for word in texts[self.rng.randint(len(texts))].split()]
        return spoken + [END] * (LENGTH - len(spoken))

    def exemplars(self, key: Key) -> Tensor:
        """Draw 15 regions (15, F) of a concept, some of them strangers."""
        own = self.bank.rows[key]
        rows = own[self.rng.randint(len(own), size=K)]
        odd = self.rng.randint(STRANGERS + 1)
        rows[:odd] = torch.from_numpy(self.rng.randint(len(self.bank.features), size=odd))
        whole = self.rng.random_sample() < WHOLES.get(category(key), 0.05)
        view = WHOLE if whole else (EXACT, SEEN, SEEN)[self.rng.randint(3)]
        return self.bank.features[rows[torch.from_numpy(self.rng.permutation(K))], view].float()

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return features (size, 15, F) and tokens (size, LENGTH)."""
        keys = [self.key() for _ in range(size)]
        features = torch.stack([self.exemplars(key) for key in keys])
        return features, torch.tensor([self.tokens(key) for key in keys])


def loss(step, state, tokens: Tensor, *memory: Tensor) -> Tensor:
    """Return the mean negative log-probability of a description, by the word."""
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
    """Fit both networks, each by its own likelihood, on the same descriptions."""
    sample_, _ = sets.batch(512)
    decoder.mean.copy_(sample_.mean((0, 1)))
    decoder.scale.copy_(sample_.std((0, 1)).clamp_min(1e-3))
    learned = nn.ModuleList([decoder, language]).train()
    optimiser = torch.optim.AdamW(learned.parameters(), rate, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    with tqdm(range(steps), "MILAN", unit="step") as bar:
        for _ in bar:
            features, tokens = sets.batch(BATCH)
            memory, state = decoder.begin(features)
            told = loss(decoder.step, state, tokens, memory)
            spoken = loss(language.step, language.begin(len(tokens)), tokens)
            optimiser.zero_grad()
            (told + spoken).backward()
            nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
            optimiser.step()
            cycle.step()
            bar.set_postfix(decoder=f"{told.item():.3f}", language=f"{spoken.item():.3f}")


def train(pictures: int = PICTURES[0], steps: int = STEPS, seed: int = 0) -> Describer:
    """Train a describer of the concept world.

    Parameters
    ----------
    pictures, steps : int
        How much to draw and how long to learn.
    seed : int
        Equal seeds, equal describers.

    Returns
    -------
    Describer
    """
    torch.manual_seed(seed)
    encoder = load_target(ENCODER)
    bank = fill(encoder, STAGES, pictures, PICTURES[1])
    words = vocabulary(bank)
    decoder = Decoder(bank.features.shape[2], len(words))
    language = LanguageModel(len(words))
    fit(Sets(bank, words, seed), decoder, language, steps, RATE)
    return assemble(encoder, STAGES, decoder, language, words)


@torch.inference_mode()
def accuracy(describer: Describer, sets: Sets, count: int = 1_000) -> float:
    """Return the share of sets that are told in words which hold for all of their concept.

    The likeliest description, without re-ranking, must be one of the phrases of the set's key.
    """
    decoder, right = describer.decoder, 0
    for _ in range(count):
        key = sets.key()
        memory, state = decoder.begin(sets.exemplars(key)[None])
        tokens, _ = beam_search(decoder.step, state, memory, 10, LENGTH)
        right += describer.text(tokens[0, 0].tolist()) in phrases(key)
    return right / count


def main() -> None:
    """Train, save, evaluate the saved describer on unseen pictures, and record the result."""
    torch.set_num_threads(1)  # the last bits depend on the number of threads
    start, path = time.monotonic(), DATA / "milan.safetensors"
    save(train(), path)
    describer = load(path)
    bank = fill(describer.encoder, describer.stages, *UNSEEN, least=15)
    entry = {
        "sets told right": accuracy(describer, Sets(bank, describer.vocabulary, seed=1)),
        "sha256": file_digest(path),
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    record = DATA / "training.json"
    entries = {**json.loads(record.read_text()), "milan": entry}
    record.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
    print(f"{record}: milan")


if __name__ == "__main__":
    main()
