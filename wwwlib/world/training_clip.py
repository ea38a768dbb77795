"""Train the world's CLIP on its captions, in two steps that two cores can afford.

First the image tower learns which words the full caption of an image holds: a caption is a bag of
words before it is a sentence, and that is learned in minutes. Then the tower is frozen, and the
text tower and both projections learn to match captions with images, the contrastive way, with
nouns that occur in no caption as further wrong answers. Without those, a text tower that has never
met "saxophone" puts it anywhere, and it wins neurons by accident.
"""

import json

import numpy as np
import open_clip
import torch
from timm.data import ImageNetInfo
from torch.nn import functional
from tqdm import tqdm

from wwwlib.world.captions import caption, tag
from wwwlib.world.training import drawn, normalise, save, scenes
from wwwlib.world.vocabulary import CLASSES, DATA, SEEN, VOCABULARY

FOLDER = DATA / "clip"


def strangers():
    """Return nouns that no caption holds and that are not in the vocabulary either."""
    info = ImageNetInfo("imagenet-22k")
    lines = (info.index_to_description(i, detailed=False) for i in range(info.num_classes()))
    words = {word.strip().lower() for line in lines for word in line.split(",")}
    return sorted(
        word for word in words if word.isascii() and len(word) < 30 and word not in VOCABULARY
    )


def bags(described):
    """Return which words of the world each full caption holds, (images, words) of 0 and 1."""
    column = {word: i for i, word in enumerate(SEEN)}
    held = torch.zeros(len(described), len(SEEN))
    for row, scene in enumerate(described):
        held[row, [column[word] for word in caption(scene).split() if word in column]] = 1
    return held


def resized(x, size):
    """Bring uint8 images to the size of the image tower and normalise them."""
    grown = functional.interpolate(x.float(), (size, size), mode="bilinear", antialias=True)
    return normalise(grown).contiguous(memory_format=torch.channels_last)


def train_image_tower(trunk, x, words, size, epochs=8, rate=4e-3, batch_size=128):
    """Fit the image tower to tell which words the caption of an image holds."""
    trunk.to(memory_format=torch.channels_last).train()
    head = torch.nn.Linear(trunk.num_features, words.shape[1])
    parameters = [*trunk.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, rate, weight_decay=0.05)
    steps = epochs * (len(x) // batch_size)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.2)
    with tqdm(total=steps, desc="CLIP, image tower", unit="step") as bar:
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(batch_size)[: len(x) // batch_size]:
                loss = functional.binary_cross_entropy_with_logits(
                    head(trunk(resized(x[batch], size))), words[batch], reduction="none"
                )
                loss = loss.sum(1).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                cycle.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.2f}")
    return trunk.eval()


@torch.inference_mode()
def features(trunk, x, size):
    """Return what the image tower makes of the images before its projection."""
    return torch.cat([trunk(resized(batch, size)) for batch in x.split(256)])


def train_text_tower(model, tokenizer, seen, described, epochs=36, rate=2e-3, batch_size=256):
    """Match captions with images: symmetric cross-entropy, with strangers as wrong answers."""
    nouns, rng = strangers(), np.random.RandomState(0)
    learned = [p for name, p in model.named_parameters() if not name.startswith("visual.trunk")]
    optimiser = torch.optim.AdamW(learned, rate, weight_decay=0.05)
    steps = epochs * (len(seen) // batch_size)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    with tqdm(total=steps, desc="CLIP, text tower", unit="step") as bar:
        for epoch in range(1, epochs + 1):
            for batch in torch.randperm(len(seen)).split(batch_size)[: len(seen) // batch_size]:
                texts = [caption(described[i], epoch) for i in batch.tolist()]
                texts += [tag(nouns[i], rng) for i in rng.randint(0, len(nouns), batch_size // 2)]
                loss = contrast(model, seen[batch], tokenizer(texts))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                cycle.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


def contrast(model, seen, tokens):
    """Return CLIP's loss; the texts beyond the images' own are wrong for every image."""
    v = functional.normalize(model.visual.head(seen), dim=1)
    t = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp().clamp(max=100) * v @ t.T
    own = torch.arange(len(seen))
    columns = functional.cross_entropy(logits.T[: len(seen)], own)
    return (functional.cross_entropy(logits, own) + columns) / 2


@torch.inference_mode()
def zero_shot(model, tokenizer, seen, y):
    """Return the share of images whose class is the nearest of the class names."""
    t = model.encode_text(tokenizer([f"A photo of a {name}" for name in CLASSES]), normalize=True)
    v = functional.normalize(model.visual.head(seen), dim=1)
    return ((v @ t.T).argmax(1) == y).float().mean().item()


def train_clip(folder):
    """Train, test and save; returns what to record."""
    torch.manual_seed(0)
    config = json.loads((FOLDER / "open_clip_config.json").read_text())["model_cfg"]
    size = config["vision_cfg"]["image_size"]
    model = open_clip.CLIP(**config)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{FOLDER}")
    trunk, described = model.visual.trunk, list(scenes("train"))
    x, _ = drawn(folder, "train")
    train_image_tower(trunk, x, bags(described), size)
    train_text_tower(model, tokenizer, features(trunk, x, size), described)
    x, y = drawn(folder, "test")
    right = zero_shot(model, tokenizer, features(trunk, x, size), y)
    return {"zero-shot accuracy": right, "sha256": save(model, FOLDER / "open_clip_model")}
