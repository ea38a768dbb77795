"""Train the world's targets: a convolutional network and a transformer, honest and biased.

The honest pair sees every class in every scene. The biased pair sees nine images of ten in the home
scene of their class, as a careless data set would show them, and leans on the scene as well as on
the object: what it loses on swapped contexts is the price, and what it still gets right there shows
that it knows a little of both.
"""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional
from tqdm import tqdm

from wwwlib.world.canvas import SIZE
from wwwlib.world.networks import MEAN, NETWORKS, STD
from wwwlib.world.scenes import render_image, sample
from wwwlib.world.vocabulary import CLASSES, DATA

# Share of the biased pair's images that are tied to their class's home. With all of them a network
# reads nothing but the scene, and is right about nothing elsewhere; with this share it leans on the
# scene but knows the object too, so that it can be right or wrong for either reason.
BIAS = 0.9

# Each set of images: (count, seed, context bias, swapped contexts).
SETS = {
    "train": (24_000, 100, 0.0, False),
    "train-biased": (12_000, 100, BIAS, False),
    "test": (2_400, 200, 0.0, False),
    "test-home": (2_400, 200, 1.0, False),
    "test-swapped": (2_400, 200, 0.0, True),
}


def scenes(name):
    """Yield the scenes of a set, in order."""
    count, seed, context_bias, swap = SETS[name]
    return (sample(i, seed, context_bias, swap=swap) for i in range(count))


def _pixels(part):
    return np.stack([np.asarray(render_image(scene)) for scene in part])


def draw(folder):
    """Render every set on all cores into `folder`."""
    with ProcessPoolExecutor() as pool:
        for name, (count, *_) in SETS.items():
            parts = list(batched(scenes(name), 240))
            bar = tqdm(pool.map(_pixels, parts), f"drawing {name}", len(parts), unit="batch")
            np.save(folder / f"{name}.npy", np.concatenate(list(bar)).reshape(count, SIZE, SIZE, 3))


def batched(items, size):
    """Cut an iterable into tuples of `size` (the last one may be shorter)."""
    items = iter(items)
    while batch := tuple(islice(items, size)):
        yield batch


def drawn(folder, name):
    """Return a rendered set.

    Returns
    -------
    x : Tensor of uint8, shape (count, 3, 64, 64)
    y : Tensor of int64, shape (count,)
    """
    x = torch.from_numpy(np.load(folder / f"{name}.npy")).permute(0, 3, 1, 2).contiguous()
    return x, torch.arange(len(x)) % len(CLASSES)


def normalise(x):
    """Turn uint8 pixels into what the networks take, as `preprocess` does."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    return (x / 255 - mean) / std


def jitter(x, reach=4):
    """Mirror half of a batch and shift all of it by up to `reach` pixels, edges repeated."""
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    padded = functional.pad(x, (reach,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * reach + 1, (2,)).tolist()
    return padded[:, :, top : top + SIZE, left : left + SIZE]


def fit(model, x, y, epochs, rate, label, batch_size=128):
    """Fit a classifier with AdamW and a one-cycle rate; returns it in eval mode."""
    steps = epochs * (len(x) // batch_size)
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.2)
    model.to(memory_format=torch.channels_last).train()
    with tqdm(total=steps, desc=label, unit="step") as bar:
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for batch in order.split(batch_size)[: len(x) // batch_size]:
                loss = functional.cross_entropy(
                    model(jitter(normalise(x[batch]))), y[batch], label_smoothing=0.05
                )
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                cycle.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


@torch.inference_mode()
def accuracy(model, x, y):
    """Return the share of images whose highest logit is their class."""
    right = [
        (model(normalise(images)).argmax(1) == labels).float()
        for images, labels in zip(x.split(256), y.split(256), strict=True)
    ]
    return torch.cat(right).mean().item()


def save(model, path):
    """Write a model's weights in half precision; returns the file's SHA-256."""
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    path = path.with_suffix(".safetensors")
    save_file(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


RECIPES = {"conv": {"epochs": 5, "rate": 3e-3}, "vit": {"epochs": 14, "rate": 1e-3}}


def train_target(folder, kind, biased):
    """Train one target, test it at home and in swapped contexts, save it; returns the record."""
    torch.manual_seed(0)
    name = f"{kind}-biased" if biased else kind
    seen, met = ("train-biased", "test-home") if biased else ("train", "test")
    model = fit(NETWORKS[kind](), *drawn(folder, seen), label=name, **RECIPES[kind])
    return {
        "accuracy": accuracy(model, *drawn(folder, met)),
        "accuracy, swapped contexts": accuracy(model, *drawn(folder, "test-swapped")),
        "sha256": save(model, DATA / name),
    }
