"""Draw the README's first picture: a photograph, explained and tested with a real network.

    python papermill_runs/first_picture.py

Network, encoder and probe set are those of `photographs`. Writes the picture and its facts to
docs/, and the caption, made from the facts, into README.md.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap

import numpy as np
import photographs
import picture
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

import wwwlib
from wwwlib import contributions, images, language, maps, targets
from wwwlib.atlas import Atlas, Explanation
from wwwlib.plots import page, style
from wwwlib.plots.style import BODY, GREEN, GREY, HEAD, SMALL, VERMILION, share

ROOT = picture.ROOT
NAME = "docs/palace"
PHOTO, LAYER, TOP, K, DRAWS = "temple.jpg", photographs.LAYER, 5, 5, 20
NETWORK = "../papermill_runs/photographs.py:network"  # as in profile `example`, whose store serves
WORDS = ROOT / "data" / "photo_words.txt"
BEGIN, END = (
    "<!-- first picture: papermill_runs/first_picture.py -->",
    "<!-- end of first picture -->",
)
ROWS = 3  # neurons drawn of those explained
# What names stand for: the outline of the building by hand, in fractions of the network's input.
THING, WORDS_FOR_IT = "building", ("building", "temple", "pagoda", "palace", "roof")
OUTLINE = (
    (0.00, 0.19), (0.16, 0.09), (0.17, 0.01), (0.22, 0.01), (0.23, 0.10), (0.35, 0.20),
    (0.50, 0.26), (0.43, 0.30), (0.43, 0.36), (0.52, 0.40), (0.50, 0.45), (0.50, 0.53),
    (0.58, 0.61), (0.55, 0.65), (0.56, 0.76), (0.64, 0.83), (0.50, 0.93), (0.46, 1.00),
    (0.30, 1.00), (0.10, 0.88), (0.00, 0.82),
)  # fmt: skip
CREDIT = "Photograph: danielbuechele, [CC BY 2.0](data/README.md)."


# What is shown ----------------------------------------------------------------------------------


def explained(target: targets.Target, encoder: language.Encoder) -> tuple[Atlas, Explanation]:
    """Name the neurons of the last layer by the patches, and explain the photograph."""
    words, probe = language.from_file(WORDS), photographs.patches()
    few = {"boxes": [(0.25, 0.25, 0.75, 0.75)], "k_minor": 1, "rounds": 0}  # no minor names here
    book = wwwlib.build(target, probe, [LAYER], words, encoder, k=K, **few)
    photos = images.folder(photographs.PHOTOS, progress=False)
    return book, book.explain(photos.image(photos.names.index(PHOTO)), top=TOP)


def shown(name: str) -> set[str]:
    """Return the words for what a photograph shows, given the name of a patch of it."""
    return set(photographs.SHOWN[name.partition(" [")[0]].split())


def agreement(names: list[str | None], patches: list[list[str]], seed: int = 0) -> dict[str, float]:
    """Return how often patches are of photographs that show what they are named.

    Parameters
    ----------
    names : list of str or None
        The first name of each neuron; neurons without one are left out.
    patches : list of list of str
        The names of each neuron's exemplars.

    Returns
    -------
    dict of str to float
        "names": mean share of a neuron's patches; "shuffled": the same with the names of other
        neurons, mean of 20 random orders; "best": with the best word of the list for each neuron.
    """
    rows = [i for i, name in enumerate(names) if name is not None]
    seen = [[shown(one) for one in patches[i]] for i in rows]
    given = [names[i] for i in rows]

    def mean(words: list[str]) -> float:
        pairs = zip(words, seen, strict=True)
        return sum(sum(w in s for s in own) / len(own) for w, own in pairs) / len(rows)

    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(rows), generator=generator).tolist() for _ in range(DRAWS)]
    every = sorted(set().union(*(one for own in seen for one in own)))
    best = [max(every, key=lambda w: sum(w in s for s in own)) for own in seen]
    return {
        "names": mean(given),
        "shuffled": sum(mean([given[i] for i in order]) for order in orders) / DRAWS,
        "best": mean(best),
    }


def outlined(size: tuple[int, int]) -> Tensor:
    """Return which pixels (H, W) are of the thing that is outlined by hand."""
    drawn = Image.new("1", size[::-1])
    corners = [(x * size[1], y * size[0]) for x, y in OUTLINE]
    ImageDraw.Draw(drawn).polygon(corners, fill=1)
    return torch.from_numpy(np.array(drawn))


def on_named(n, size: tuple[int, int]) -> float | None:
    """Return the share of a neuron's region on the thing that its first name is a word for.

    None if the neuron has no name, or one for something else.
    """
    if not n.names or n.names[0] not in WORDS_FOR_IT:
        return None
    return (n.region & outlined(size)).sum().item() / n.region.sum().item()


def regions(e: Explanation, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the union (H, W) of the neurons' regions, and as large random ones (20, H, W)."""
    union = torch.stack([n.region for n in e.sample.neurons]).any(0)
    noise = torch.rand(DRAWS, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    noise = maps.resize(noise, tuple(union.shape))[:, 0].flatten(1)
    rank = noise.argsort(1, descending=True).argsort(1)
    return union, (rank < union.sum()).view(-1, *union.shape)


def blurred(x: Tensor, hidden: Tensor) -> Tensor:
    """Return images (M, 3, H, W): the image x (3, H, W), blurred where `hidden` (M, H, W)."""
    side = min(x.shape[1:]) // 6 * 2 + 1
    return torch.where(hidden[:, None], gaussian_blur(x, [side] * 2), x)


def probability(target: targets.Target, x: Tensor, c: int) -> Tensor:
    """Return (B,) probabilities of class c."""
    with torch.inference_mode():
        return target.model(x).softmax(1)[:, c]


def silenced(target: targets.Target, x: Tensor, sets: Tensor, c: int) -> Tensor:
    """Return (S,) probabilities of class c with each set (S, n) of neurons set to zero; exact."""
    weight, bias = contributions.head(target, LAYER)
    with torch.inference_mode():
        z = contributions.forward(target, x[None], [LAYER])[1][LAYER].z
    z = z.repeat(len(sets), 1).scatter(1, sets, 0.0)
    return (z @ weight.T + bias).softmax(1)[:, c].detach()


def facts(target: targets.Target, book: Atlas, e: Explanation, x: Tensor) -> dict:
    """Return what picture and caption say, as JSON values."""
    patches, record = photographs.patches().names, book.layers[LAYER]
    exemplars = [[patches[i] for i in row if i >= 0] for row in record.exemplars.index.tolist()]
    first = [row[0] if row else None for row in record.major.names]
    neurons = [
        {"index": n.index, "names": list(n.names), "share": n.contribution,
         "on": on_named(n, tuple(n.region.shape))}
        for n in e.sample.neurons
    ]  # fmt: skip
    known = {"photograph": PHOTO, "predicted": e.predicted_name, "probability": e.probability}
    known |= {"neurons": neurons, "share": e.sample.share, "layer size": e.sample.layer_size}
    known |= {"r": e.r, "r_words": e.r_words, "patches": len(patches)}
    known |= {"named": sum(name is not None for name in first)}
    size = tuple(e.sample.neurons[0].region.shape)
    known |= {"area of the thing": outlined(size).double().mean().item()}
    known |= {"agreement": agreement(first, exemplars)}
    union, others = regions(e)
    tried = blurred(x, torch.cat([union[None], ~union[None], others]))
    p = probability(target, tried, e.predicted)
    known |= {"area": union.double().mean().item(), "blurred": p[0].item(), "alone": p[1].item()}
    known |= {"random blurred": p[2:].mean().item(), "random as low": (p[2:] <= p[0]).sum().item()}
    own = torch.tensor([[n.index for n in e.sample.neurons]])
    generator = torch.Generator().manual_seed(0)
    some = torch.stack([
        torch.randperm(e.sample.layer_size, generator=generator)[:TOP] for _ in range(DRAWS)
    ])  # fmt: skip
    p = silenced(target, x, torch.cat([own, some]), e.predicted)
    return known | {"silenced": p[0].item(), "random silenced": p[1:].mean().item()}


def article(word: str) -> str:
    """Return a word with its indefinite article, by its first letter."""
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def better(n: dict, known: dict) -> bool:
    """Whether a neuron's region is on what it is named after, more than by chance."""
    return n["on"] is not None and n["on"] > known["area of the thing"]


def verdict(known: dict) -> str:
    """Return a sentence that compares the regions with random pixels."""
    n, guess = known["random as low"], known["predicted"]
    if n == 0:
        return f"None of {DRAWS} random masks of that size lowers {guess} as much."
    return f"Of {DRAWS} random masks of that size {n} lower {guess} as much."


def caption(known: dict) -> str:
    """Return the caption: what the facts say, whichever they are."""
    neurons, agree, guess = known["neurons"], known["agreement"], known["predicted"]
    found = [n for n in neurons if n["on"] is not None]
    words = " or ".join(dict.fromkeys(f"*{n['names'][0]}*" for n in found))
    return (
        f"*Why is this {article(guess)}?* EfficientNet-Lite0, trained on ImageNet, predicts it "
        f"({share(known['probability'])}). Its weights and those of an encoder are packages of the "
        f"index; exemplars are {known['patches']} patches of "
        f"[seven photographs](docs/photographs.md). "
        f"**What**: {len(found)} of the {len(neurons)} neurons that contribute most are named "
        f"{words}. **Where**: {sum(better(n, known) for n in found)} of them are active on the "
        f"{THING} more than by chance ({', '.join(share(n['on']) for n in found)} of their "
        f"regions; it covers {share(known['area of the thing'])} of the picture). "
        f"**Why**: the neurons carry {share(known['share'])} of all contributions; set to "
        f"zero, they leave {guess} at {share(known['silenced'])}, as many random ones at "
        f"{share(known['random silenced'])}. "
        f"**How sure**: with the regions blurred, {share(known['area'])} of the pixels, {guess} is "
        f"at {share(known['blurred'])}, with as many random pixels at "
        f"{share(known['random blurred'])}. {verdict(known)} So few patches name "
        f"{known['named']} of {known['layer size']:,} neurons; {share(agree['names'])} of their "
        f"exemplars are from photographs that show the name (shuffled names "
        f"{share(agree['shuffled'])}, best words {share(agree['best'])}). {CREDIT}"
    )


def readme(text: str, known: dict) -> str:
    """Replace the picture and its caption in the README's text."""
    alt = (
        f"A photograph, predicted {known['predicted']}: three neurons with their names, regions, "
        "patches and shares; heatmaps of class and image; and the photograph with regions blurred"
    )
    block = "\n\n".join(
        textwrap.fill(one, 110, break_long_words=False, break_on_hyphens=False)
        for one in (f"![{alt}]({NAME}.png)", caption(known))
    )
    place = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    found, count = place.subn(lambda _: f"{BEGIN}\n{block}\n{END}", text)
    if count != 1:
        raise ValueError(f"README.md has {count} pairs of {BEGIN!r} and {END!r}; write one.")
    return found


# The picture ------------------------------------------------------------------------------------


def _neuron(figure: Figure, n, known: dict, place: int, y: float, e, book: Atlas) -> None:
    """Draw a neuron: its region, name, how much of the region is on that, patches, and share."""
    side, x, thumb = 1.08, 2.55, 0.5
    page.spot(picture.axes_at(figure, x, y, side, side), e.image, n.region, place)
    words = picture.axes_at(figure, x + side + 0.12, y, 2.0, side)
    name = style.fit(", ".join(n.names[:2]) or "no name", 1.85, HEAD, bold=True)
    own = known["neurons"][place]
    colour = style.INK if better(own, known) else GREY
    top = page.write(words, name, size=HEAD, bold=True, colour=colour)
    said = "untested"
    if own["on"] is not None:
        mark = "✓" if better(own, known) else "✗"
        said = f"{mark} region: {share(own['on'])} on the {THING}"
    page.write(words, said, top, colour=GREY)
    for column, i in enumerate([i for i in n.exemplars if i in book.thumbnails][:3]):
        left = x + side + 0.12 + column * (thumb + 0.05)
        picture.image_at(figure, book.thumbnails[i], left, y + 0.42, thumb)
    bar = picture.axes_at(figure, x + side + 0.12, y + 0.97, 1.6, 0.11)
    widest = e.sample.neurons[0].contribution
    bar.barh([0], [n.contribution / widest], color=style.look(place)[0])
    bar.set(xlim=(0, 1.32), ylim=(-0.5, 0.5))
    bar.text(n.contribution / widest + 0.03, 0, share(n.contribution), va="center", size=SMALL)


@style.styled
def draw(known: dict, e: Explanation, book: Atlas, seen: list[Image.Image]) -> Figure:
    """Draw the explanation with callouts: what, where, why, and how sure.

    `seen` are the picture with the regions blurred, with random ones blurred, and with the regions
    alone.
    """
    figure, guess = Figure(figsize=picture.SIZE), known["predicted"]

    def text(x: float, y: float, lines, width: float = 3.4, **how) -> None:
        page.write(picture.axes_at(figure, x, y, width, 0.3), lines, **how)

    text(0.2, 0.14, f"Why is this {article(guess)}?", size=15, bold=True)
    for x, head in ((0.2, "The decision"), (2.55, "What, where, why"), (5.95, "How sure: hide it")):
        text(x, 0.62, head, size=HEAD + 0.5, bold=True)
    text(4.27, 0.66, "bars: contributions", 1.9, colour=GREY)
    picture.image_at(figure, e.image, 0.2, 0.92, 2.0, style.INK)
    text(0.2, 2.98, f"{guess}, {share(e.probability)}", size=HEAD, bold=True)
    text(0.2, 3.2, "The network's input: the middle.", colour=GREY)
    for place, (name, track) in enumerate((("class", e.cls), ("image", e.sample))):
        left = 0.2 + place * 1.04
        picture.image_at(figure, page.heated(e.image, track.heatmap), left, 3.62, 0.96)
        text(left, 4.6, f"heatmap: {name}", 1, colour=GREY)
    text(0.2, 4.88, known["r_words"].split(",")[0], size=HEAD, bold=True)
    text(0.2, 5.1, style.fit("of both heatmaps, by neurons that matter for the class and here", 2.1,
                             lines=2), colour=GREY)  # fmt: skip
    for place, n in enumerate(e.sample.neurons[:ROWS]):
        _neuron(figure, n, known, place, 0.92 + place * 1.3, e, book)
    found = [n for n in known["neurons"] if n["on"] is not None]
    lines = (
        f"A name is a hypothesis. {sum(better(n, known) for n in found)} of {len(found)} neurons "
        f"named {THING} are active on it more than by chance, its share of the picture "
        f"({share(known['area of the thing'])}). Other names are grey."
    )
    text(2.55, 4.88, style.fit(lines, 3.1, BODY, lines=4), size=BODY)
    _tests(figure, known, seen)
    return figure


def _tests(figure: Figure, known: dict, seen: list[Image.Image]) -> None:
    """Draw the right column: what is left of the probability when pixels or neurons go."""
    x, side, guess = 5.95, 1.06, known["predicted"]
    cells = zip(
        seen,
        (
            ["regions of", "the neurons"],
            ["as many pixels", "at random"],
            ["all but", "the regions"],
        ),
        ("blurred", "random blurred", "alone"),
        strict=True,
    )
    head = f"blurred, {share(known['area'])} of the pixels"
    page.write(picture.axes_at(figure, x, 0.92, 3.4, 0.2), head, size=SMALL + 0.5, colour=GREY)
    for place, (shown_there, words, key) in enumerate(cells):
        left = x + place * (side + 0.1)
        colour = VERMILION if known[key] < known["probability"] / 2 else GREEN
        picture.image_at(figure, shown_there, left, 1.16, side, colour)
        axes = picture.axes_at(figure, left, 1.16 + side + 0.04, side, 0.6)
        y = page.write(axes, words, colour=GREY)
        page.write(axes, share(known[key]), y, size=HEAD, bold=True, colour=colour)
    axes = picture.axes_at(figure, x + 1.25, 3.25, 1.9, 1.5)
    axes.set_axis_on()
    rows = {
        "as it is": known["probability"],
        f"{TOP} neurons zero": known["silenced"],
        f"{TOP} random ones": known["random silenced"],
        "regions blurred": known["blurred"],
        "random pixels": known["random blurred"],
    }
    colours = [style.BLUE if "random" not in key else style.RULE for key in rows]
    axes.barh(range(len(rows)), rows.values(), color=colours, height=0.62)
    for place, value in enumerate(rows.values()):
        axes.annotate(share(value), (value, place), (4, 0), va="center", size=SMALL,
                      textcoords="offset points")  # fmt: skip
    axes.set_yticks(range(len(rows)), rows, fontsize=SMALL)
    axes.set(xlim=(0, 1.3 * max(rows.values())), ylim=(len(rows) - 0.5, -0.5), xticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes = picture.axes_at(figure, x, 2.95, 3.4, 0.2)
    page.write(axes, f"probability of {guess}", size=BODY, bold=True)
    lines = style.fit(verdict(known), 3.3, BODY, lines=2)
    page.write(picture.axes_at(figure, x, 4.88, 3.4, 0.4), lines, size=BODY)


def main() -> None:
    """Build the atlas, and write picture, facts and caption."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    target = targets.from_module(photographs.network(), name=NETWORK)
    book, e = explained(target, photographs.encoder())
    photos = images.folder(photographs.PHOTOS, progress=False)
    x = target.preprocess(photos.image(photos.names.index(PHOTO)))
    known = facts(target, book, e, x)
    union, others = regions(e)
    tried = blurred(x, torch.stack([union, others[0], ~union]))
    seen = [targets.denormalize(target, e.image, one) for one in tried]
    with style.in_style():
        draw(known, e, book, seen).savefig(ROOT / f"{NAME}.png", dpi=105)
    text = json.dumps(known, indent=1, ensure_ascii=False, allow_nan=False)
    (ROOT / f"{NAME}.json").write_text(text + "\n", encoding="utf-8")
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8"), known), encoding="utf-8")
    print(caption(known))


if __name__ == "__main__":
    main()
