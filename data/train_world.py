"""Train the networks of the concept world: `python data/train_world.py`, a step of `make world`.

There are a convolutional network, a transformer, a biased pair of them, and a CLIP. The five
trainings share the cores, one thread each. Their accuracies and the weights' digests are written to
`training.json`, from which `papermill_runs/measured.py` writes the figures of `data/README.md`.

The training images of the unbiased pair show every class in every scene. Nine in ten of the biased
pair's show the class in its home scene, so that these networks rely on the scene as well as on the
object: their accuracy in swapped contexts is low, but above chance.

The CLIP is trained on captions, of whole images and of crops, in two steps that two cores can
afford. First the image tower learns which words the full caption of an image contains, and which
words cover more than a fiftieth of a crop. Then it is frozen, and the text tower and both
projections learn to match captions with images and crops contrastively, with nouns that occur in no
caption as further negatives, and tokens that occur in none keep their random embeddings. Without
those, unseen nouns have arbitrary text features and win neurons by accident.

Contrastive training makes the similarity of image and text estimate log [p(text | image) /
p(text)], which favours rare words: a petal, which few pictures show, over the flower. As in
two-tower retrieval (Yi et al., "Sampling-bias-corrected neural modeling for large corpus item
recommendations", RecSys 2019), the logarithm of a caption's frequency is subtracted in part.
"""

import argparse
import json
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from torch.nn import functional
from tqdm import tqdm

from wwwlib.images import FIVE_CROPS
from wwwlib.images.image_set import box_pixels, crop_mask
from wwwlib.store import file_digest
from wwwlib.world.networks import MEAN, NETWORKS, STD
from wwwlib.world.painting import SIZE
from wwwlib.world.scenes import TRAINING_SEED, render, render_image, sample
from wwwlib.world.vocabulary import (
    CLASSES,
    DATA,
    SEEN,
    SYNONYMS,
    THINGS,
    VOCABULARY,
    article,
    caption,
    tag,
)

# Share of the biased pair's training images with the class in its home scene. At 1 a network uses
# nothing but the scene and fails in all others; at this share it uses scene and object, and can be
# right or wrong because of either.
BIAS = 0.9

LEAST = 0.02  # share of a crop that a word's mask covers if it is in the crop's caption
LEADS = 0.8  # share of crops' captions that begin with an object, where the crop shows one
NOUN = 0.25  # share of whole images' captions that are the class's noun alone
CORRECTION = 0.6  # share of the log frequency of captions that the contrastive loss subtracts
OBJECTS = {*CLASSES, *THINGS, *(word for own in SYNONYMS.values() for word in own)}

# Each set of images: (count, seed, context bias, swapped contexts).
SETS = {
    "train": (24_000, TRAINING_SEED, 0.0, False),
    "train-biased": (12_000, TRAINING_SEED, BIAS, False),
    "test": (2_400, 200, 0.0, False),
    "test-home": (2_400, 200, 1.0, False),
    "test-swapped": (2_400, 200, 0.0, True),
}
CLIP_EPOCHS = (8, 4, 12)  # image tower on whole images, then with crops; text tower
RECIPES = {"conv": {"epochs": 5, "rate": 3e-3}, "vit": {"epochs": 14, "rate": 1e-3}}


def scenes(name):
    """Return the scenes of a set, in order."""
    count, seed, context_bias, swap = SETS[name]
    return [sample(i, seed, context_bias, swap=swap) for i in range(count)]


def _pixels(part):
    return np.stack([np.asarray(render_image(scene)) for scene in part])


def render_sets(folder, apply=map):
    """Render every set into `folder`; `apply` is ``map`` or that of a pool of processes."""
    for name in SETS:
        described = scenes(name)
        parts = [described[i : i + 240] for i in range(0, len(described), 240)]
        bar = tqdm(apply(_pixels, parts), f"drawing {name}", len(parts), unit="batch")
        np.save(folder / f"{name}.npy", np.concatenate(list(bar)))
        if name == "train":
            found = zip(*apply(crops, parts), strict=True)
            for i, own in enumerate(found):
                np.save(folder / f"crops-{i}.npy", np.concatenate(own))


def load_set(folder, name):
    """Load a rendered set.

    Returns
    -------
    x : Tensor of uint8, shape (count, 3, 64, 64)
    y : Tensor of int64, shape (count,)
    """
    x = torch.from_numpy(np.load(folder / f"{name}.npy")).permute(0, 3, 1, 2).contiguous()
    return x, torch.arange(len(x)) % len(CLASSES)


def normalise(x):
    """Turn uint8 pixels into the networks' input, as `preprocess` does."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    return (x / 255 - mean) / std


def jitter(x, reach=4):
    """Mirror half of a batch and shift all of it by up to `reach` pixels, edges repeated."""
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    padded = functional.pad(x, (reach,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * reach + 1, (2,)).tolist()
    return padded[:, :, top : top + SIZE, left : left + SIZE]


def optimise(
    parameters, loss_of, count, epochs, rate, label, batch_size=128, warmup=0.2, clip=float("inf")
):
    """Minimise a loss on shuffled batches with AdamW and a one-cycle learning rate.

    Parameters
    ----------
    parameters : sequence of Tensor
    loss_of : callable
        Takes the indices of a batch and the number of the epoch, from 1; returns a scalar.
    count : int
        Number of training images; an incomplete last batch is left out.
    epochs, rate, label, batch_size
        The rate is the maximum of the cycle; the label names the progress bar.
    warmup : float in [0, 1]
        Share of the steps in which the rate rises.
    clip : float
        Maximum norm of the gradient.
    """
    parameters, batches = list(parameters), count // batch_size
    optimiser = torch.optim.AdamW(parameters, rate, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * batches, pct_start=warmup)
    with tqdm(total=epochs * batches, desc=label, unit="step") as bar:
        for epoch in range(1, epochs + 1):
            for batch in torch.randperm(count).split(batch_size)[:batches]:
                loss = loss_of(batch, epoch)
                optimiser.zero_grad()
                loss.backward()
                if clip < float("inf"):
                    torch.nn.utils.clip_grad_norm_(parameters, clip)
                optimiser.step()
                cycle.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}")


def fit(model, x, y, epochs, rate, label):
    """Fit a classifier on (count, 3, 64, 64) uint8 pixels; returns it in eval mode."""
    model.to(memory_format=torch.channels_last).train()

    def loss_of(batch, epoch):
        logits = model(jitter(normalise(x[batch])))
        return functional.cross_entropy(logits, y[batch], label_smoothing=0.05)

    optimise(model.parameters(), loss_of, len(x), epochs, rate, label, clip=1.0)
    return model.eval()


@torch.inference_mode()
def accuracy(model, x, y):
    """Return the share of images whose highest logit is their class."""
    predicted = torch.cat([model(normalise(batch)).argmax(1) for batch in x.split(256)])
    return (predicted == y).float().mean().item()


def save(model, path):
    """Write a model's weights in half precision; returns the file's SHA-256."""
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    path = path.with_suffix(".safetensors")
    save_file(state, path)
    return file_digest(path)


def train_target(folder, kind, biased):
    """Train, test and save one target.

    Returns
    -------
    dict
        Accuracy on its own kind of test images and in swapped contexts, and the file's SHA-256.
    """
    torch.manual_seed(0)
    name = f"{kind}-biased" if biased else kind
    training_set, test_set = ("train-biased", "test-home") if biased else ("train", "test")
    model = fit(NETWORKS[kind](), *load_set(folder, training_set), label=name, **RECIPES[kind])
    return {
        "accuracy": accuracy(model, *load_set(folder, test_set)),
        "accuracy, swapped contexts": accuracy(model, *load_set(folder, "test-swapped")),
        "sha256": save(model, DATA / name),
    }


def negative_nouns():
    """Return the lemmas of ImageNet-22k that are not in the world's vocabulary."""
    info = ImageNetInfo("imagenet-22k")
    lines = (info.index_to_description(i, detailed=False) for i in range(info.num_classes()))
    words = {word.strip().lower() for line in lines for word in line.split(",")}
    return sorted(
        word for word in words if word.isascii() and len(word) < 30 and word not in VOCABULARY
    )


def caption_words(described):
    """Return which of `SEEN` each scene's full caption contains, (scenes, words) of 0 and 1."""
    column = {word: i for i, word in enumerate(SEEN)}
    contains = torch.zeros(len(described), len(SEEN))
    for row, scene in enumerate(described):
        contains[row, [column[word] for word in caption(scene).split() if word in column]] = 1
    return contains


def crop_box(i, rng):
    """Return one of the five crops that name minor concepts for even scenes, else any other box."""
    five = FIVE_CROPS[rng.randint(len(FIVE_CROPS))]
    if i % 2 == 0:
        return five
    width, height = rng.uniform(0.25, 0.75, 2)
    left, top = rng.random_sample(2) * (1 - width, 1 - height)
    return left, top, left + width, top + height


def crops(part):
    """Cut a box from each scene; returns pixels (scenes, 4) and words of `SEEN` (scenes, words)."""
    boxes = np.zeros((len(part), 4), np.uint8)
    shown = np.zeros((len(part), len(SEEN)), np.uint8)
    for row, scene in enumerate(part):
        box = crop_box(scene.seed[-1], np.random.RandomState([*scene.seed, 3]))
        boxes[row] = box_pixels(box, SIZE, SIZE)
        for word, mask in render(scene).masks.items():
            if crop_mask(mask, box).mean() > LEAST:
                shown[row, [SEEN.index(name) for name in SYNONYMS.get(word, (word,))]] = 1
    return boxes, shown


def describe(words, rng):
    """Write a caption of a crop: one of its words, or up to three, mostly an object first."""
    objects = [word for word in words if word in OBJECTS]
    leading = objects if objects and rng.random_sample() < LEADS else words
    first = leading[rng.randint(len(leading))]
    if rng.random_sample() < 0.6:
        return tag(first, rng)
    rest = rng.permutation([word for word in words if word != first])[: rng.randint(1, 3)]
    return " and ".join(article(word) for word in (first, *rest))


def describe_image(scene, variant):
    """Write a caption of a whole image: `caption`, or its noun alone."""
    rng = np.random.RandomState([*scene.seed, 4, variant])
    if rng.random_sample() >= NOUN:
        return caption(scene, variant)
    nouns = SYNONYMS[scene.subject]
    return tag(nouns[rng.randint(len(nouns))], rng)


def cut(x, boxes, size):
    """Cut each image to its box, resize it for the image tower and normalise it."""
    parts = zip(x, boxes.tolist(), strict=True)
    cuts = [image[:, y:to, left:end].float()[None] for image, (left, y, end, to) in parts]
    how = {"size": (size, size), "mode": "bilinear", "antialias": True}
    resized = normalise(torch.cat([functional.interpolate(one, **how) for one in cuts]))
    return resized.contiguous(memory_format=torch.channels_last)


def train_image_tower(trunk, draw, words, epochs, rate):
    """Fit the image tower to predict the (pictures, words) that images and crops show."""
    trunk.to(memory_format=torch.channels_last).train()
    head = torch.nn.Linear(trunk.num_features, words.shape[1])

    def loss_of(batch, epoch):
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(trunk(draw(batch))).float()
        loss = functional.binary_cross_entropy_with_logits(logits, words[batch], reduction="none")
        return loss.sum(1).mean()

    parameters = [*trunk.parameters(), *head.parameters()]
    optimise(parameters, loss_of, len(words), epochs, rate, "CLIP, image tower")
    return trunk.eval()


@torch.inference_mode()
def features(trunk, draw, count):
    """Return the image tower's output before its projection, (pictures, features)."""
    return torch.cat([trunk(draw(batch)) for batch in torch.arange(count).split(256)])


def keep_other_tokens(model, tokenizer, texts):
    """Let the embeddings of all tokens but those of the texts stay random.

    Those of nouns that occur in no caption are then no different from the ones that are negatives.
    """
    embedding = model.token_embedding.weight
    learned = torch.zeros(len(embedding), 1)
    learned[tokenizer(texts).unique()] = 1
    embedding.register_hook(lambda gradient: gradient * learned)


def train_text_tower(model, tokenizer, image_features, text_of, epochs, rate=2e-3):
    """Match captions with pictures; a batch has as many unused nouns, which are negatives."""
    nouns, rng, batch_size = negative_nouns(), np.random.RandomState(0), 256
    learned = [p for name, p in model.named_parameters() if not name.startswith("visual.trunk")]
    count = len(image_features)
    # Of captions that no epoch trains on, so that their noise is not that of the batches.
    frequency = Counter(text_of(i, epochs + e) for e in (1, 2) for i in range(count))

    def loss_of(batch, epoch):
        texts = [text_of(i, epoch) for i in batch.tolist()]
        texts += [tag(nouns[i], rng) for i in rng.randint(0, len(nouns), batch_size)]
        often = torch.tensor([max(frequency[text], 1) for text in texts])
        return contrastive_loss(model, image_features[batch], tokenizer(texts), often.log())

    optimise(learned, loss_of, count, epochs, rate, "CLIP, text tower", batch_size, warmup=0.1)
    return model.eval()


def contrastive_loss(model, image_features, tokens, log_frequency):
    """Return the symmetric cross-entropy of n images and m >= n texts; the first n texts match.

    Parameters
    ----------
    model : open_clip.CLIP
    image_features : Tensor, shape (n, features)
        Output of the image tower before its projection.
    tokens : Tensor of int64, shape (m, length)
    log_frequency : Tensor, shape (m,)
        Logarithm of how often each text is a caption, up to a constant.
    """
    v = functional.normalize(model.visual.head(image_features), dim=1)
    t = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp().clamp(max=100) * v @ t.T
    own = torch.arange(len(v))
    of_images = functional.cross_entropy(logits - CORRECTION * log_frequency, own)
    return (of_images + functional.cross_entropy(logits.T[: len(v)], own)) / 2


@torch.inference_mode()
def zero_shot(model, tokenizer, image_features, y):
    """Return the share of images whose class has the most similar name."""
    t = model.encode_text(tokenizer([f"A photo of a {name}" for name in CLASSES]), normalize=True)
    v = functional.normalize(model.visual.head(image_features), dim=1)
    return ((v @ t.T).argmax(1) == y).float().mean().item()


def train_clip(folder):
    """Train, test and save the CLIP.

    Returns
    -------
    dict
        Zero-shot accuracy and the file's SHA-256.
    """
    torch.manual_seed(0)
    clip = DATA / "clip"
    config = json.loads((clip / "open_clip_config.json").read_text())["model_cfg"]
    size = config["vision_cfg"]["image_size"]
    model = open_clip.CLIP(**config)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip}")
    tokenizer.clean_fn = str  # captions need no cleaning, which takes longer than a step
    trunk, described = model.visual.trunk, scenes("train")
    x, _ = load_set(folder, "train")
    count, whole = len(x), torch.tensor([0, 0, SIZE, SIZE])
    boxes, shown = (torch.from_numpy(np.load(folder / f"crops-{i}.npy")) for i in range(2))
    boxes = torch.cat([whole.expand(count, 4), boxes.long()])
    words = torch.cat([caption_words(described), shown.float()])

    def draw(batch):
        return cut(x[batch % count], boxes[batch], size)

    def text_of(i, epoch):
        if i < count:
            return describe_image(described[i], epoch)
        own = [SEEN[j] for j in words[i].nonzero()[:, 0].tolist()]
        return describe(own, np.random.RandomState([i, epoch]))

    first, second, texts = CLIP_EPOCHS
    train_image_tower(trunk, draw, words[:count], first, rate=4e-3)
    train_image_tower(trunk, draw, words, second, rate=2e-3)
    some = (caption(scene, variant) for scene in described[:2_400] for variant in range(3))
    keep_other_tokens(model, tokenizer, [*SEEN, "a photo of an", "something and a", *some])
    torch.manual_seed(0)
    train_text_tower(model, tokenizer, features(trunk, draw, len(words)), text_of, texts)
    x, y = load_set(folder, "test")
    boxes = whole.expand(len(x), 4)
    count = len(x)
    correct = zero_shot(model, tokenizer, features(trunk, draw, count), y)
    return {"zero-shot accuracy": correct, "sha256": save(model, clip / "open_clip_model")}


# Longest first, so that the cores finish together.
TRAININGS = {
    "clip": train_clip,
    "vit": partial(train_target, kind="vit", biased=False),
    "vit-biased": partial(train_target, kind="vit", biased=True),
    "conv": partial(train_target, kind="conv", biased=False),
    "conv-biased": partial(train_target, kind="conv", biased=True),
}


def run(name, folder):
    """Train one network on one thread; returns its record."""
    torch.set_num_threads(1)
    start = time.monotonic()
    record = TRAININGS[name](folder)
    return {**record, "minutes": round((time.monotonic() - start) / 60, 1)}


def main():
    """Train the networks named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TRAININGS)}")
    names = parser.parse_args().names or list(TRAININGS)
    if unknown := set(names) - set(TRAININGS):
        parser.error(f"no such network: {', '.join(sorted(unknown))}; there are {list(TRAININGS)}")
    if not (DATA.parent / "README.md").exists():
        parser.error(f"{DATA} is part of an installed package; train in a checkout instead")
    path = DATA / "training.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    context = get_context("spawn")  # a fork of a process with threads can wait for ever
    with TemporaryDirectory() as folder, ProcessPoolExecutor(mp_context=context) as pool:
        render_sets(Path(folder), pool.map)
        runs = pool.map(partial(run, folder=Path(folder)), names)
        record.update(zip(names, runs, strict=True))
    path.write_text(json.dumps(dict(sorted(record.items())), indent=2) + "\n")
    print(f"{path}: " + ", ".join(names))


if __name__ == "__main__":
    main()
