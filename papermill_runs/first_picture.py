"""Draw the README's first picture: a photograph, explained and tested with a real network.

    python papermill_runs/first_picture.py

Network, encoder and probe set are those of `photographs`. Writes the picture and its facts to
docs/, and what they say into README.md, as the caption, and into docs/trust.md.
"""

from __future__ import annotations

import argparse

import numpy as np
import photographs
import picture
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

import wwwlib
from wwwlib import images, language, maps, targets
from wwwlib.atlas import Atlas, Explanation
from wwwlib.contributions import forward
from wwwlib.plots import page, style
from wwwlib.plots.style import BODY, GREEN, GREY, HEAD, SMALL, VERMILION, share

ROOT = picture.ROOT
NAME = "docs/palace"
PHOTO, LAYER, TOP, MANY, K, DRAWS = "temple.jpg", photographs.LAYER, 5, 50, 5, 20
NETWORK = "../papermill_runs/photographs.py:network"  # as in profile `example`, whose store serves
WORDS, TRUST = ROOT / "data" / "photo_words.txt", ROOT / "docs" / "trust.md"
BEGIN, END = (
    "<!-- first picture: papermill_runs/first_picture.py -->",
    "<!-- end of first picture -->",
)
ROWS = 3  # neurons drawn of those explained
# The object in the photograph, outlined by hand in fractions of the network's input.
OBJECT = "building"
OUTLINE = (
    (0.00, 0.19), (0.16, 0.09), (0.17, 0.01), (0.22, 0.01), (0.23, 0.10), (0.35, 0.20),
    (0.50, 0.26), (0.43, 0.30), (0.43, 0.36), (0.52, 0.40), (0.50, 0.45), (0.50, 0.53),
    (0.58, 0.61), (0.55, 0.65), (0.56, 0.76), (0.64, 0.83), (0.50, 0.93), (0.46, 1.00),
    (0.30, 1.00), (0.10, 0.88), (0.00, 0.82),
)  # fmt: skip


# What is shown ----------------------------------------------------------------------------------


def named(target: targets.Target, encoder: language.Encoder, probe: images.ImageSet) -> Atlas:
    """Name the neurons of the last layer by patches."""
    few = {"boxes": [(0.25, 0.25, 0.75, 0.75)], "k_minor": 1, "rounds": 0}  # no minor names here
    return wwwlib.build(target, probe, [LAYER], language.from_file(WORDS), encoder, k=K, **few)


def others(probe: images.ImageSet) -> images.ImageSet:
    """Return the patches that are not of the photograph explained."""
    return images.subset(probe, [i for i, n in enumerate(probe.names) if source(n) != PHOTO])


def source(name: str) -> str:
    """Return the photograph that a patch, given by its name, is of."""
    return name.partition(" [")[0]


def first_names(book: Atlas) -> list[str | None]:
    """Return the first name of each neuron, None for neurons without one."""
    return [row[0] if row else None for row in book.layers[LAYER].major.names]


def shown(name: str) -> set[str]:
    """Return the words for what a photograph shows, given the name of a patch of it."""
    return set(photographs.SHOWN[source(name)].split())


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
    """Return which pixels (H, W) are of the object that is outlined by hand."""
    drawn = Image.new("1", size[::-1])
    corners = [(x * size[1], y * size[0]) for x, y in OUTLINE]
    ImageDraw.Draw(drawn).polygon(corners, fill=1)
    return torch.from_numpy(np.array(drawn))


def regions(target: targets.Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the A active neurons, and their regions (A, H, W), of an input (3, H, W)."""
    with torch.inference_mode():
        a = forward(target, x[None], [LAYER])[1][LAYER].raw[0]
    active = (a.amax((1, 2)) > 0).nonzero()[:, 0]
    return active, maps.region(a[active][None], size=tuple(x.shape[1:]))[0]


def on_object(region: Tensor) -> Tensor:
    """Return the share (N,) of each region (N, H, W) on the object."""
    inside = region & outlined(tuple(region.shape[1:]))
    return inside.sum((1, 2)).double() / region.sum((1, 2))


def higher_than(on: Tensor) -> Tensor:
    """Return for each of N shares how many of the other ones are lower, as a share (N,)."""
    return (on[:, None] > on).double().sum(1) / (len(on) - 1)


def masks(region: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the union (H, W) of regions (N, H, W), and as large random masks (20, H, W)."""
    union = region.any(0)
    noise = torch.rand(DRAWS, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    noise = maps.resize(noise, tuple(union.shape))[:, 0].flatten(1)
    rank = noise.argsort(1, descending=True).argsort(1)
    return union, (rank < union.sum()).view(-1, *union.shape)


def random_sets(active: Tensor, own: Tensor, seed: int = 0) -> Tensor:
    """Return random sets (20, n) of active neurons other than the n own ones."""
    rest, generator = active[~torch.isin(active, own)], torch.Generator().manual_seed(seed)
    rows = [torch.randperm(len(rest), generator=generator)[: len(own)] for _ in range(DRAWS)]
    return rest[torch.stack(rows)]


def blurred(x: Tensor, hidden: Tensor) -> Tensor:
    """Return images (M, 3, H, W): the image x (3, H, W), blurred where `hidden` (M, H, W)."""
    side = min(x.shape[1:]) // 6 * 2 + 1
    return torch.where(hidden[:, None], gaussian_blur(x, [side] * 2), x)


def facts(
    target: targets.Target, book: Atlas, without: Atlas, e: Explanation, many: list[int], x: Tensor
) -> dict:
    """Return what picture and caption say, as JSON values.

    Parameters
    ----------
    target : Target
        The network.
    book : Atlas
        With names by all patches.
    without : Atlas
        With names by the patches of the other photographs.
    e : Explanation
        Of the photograph.
    many : list of int
        The neurons that contribute most, more than those described.
    x : Tensor
        (3, H, W) input.
    """
    patches, record = photographs.patches().names, book.layers[LAYER]
    exemplars = [[patches[i] for i in row if i >= 0] for row in record.exemplars.index.tolist()]
    first, left, size = first_names(book), first_names(without), e.sample.layer_size
    active, region = regions(target, x)
    on = on_object(region)
    higher, place = higher_than(on), {i: at for at, i in enumerate(active.tolist())}
    neurons = [
        {"index": n.index, "names": list(n.names), "name without": left[n.index],
         "of the photograph": sum(source(one) == PHOTO for one in exemplars[n.index]),
         "patches": len(exemplars[n.index]), "share": n.contribution,
         "on": on[place[n.index]].item(), "higher than": higher[place[n.index]].item()}
        for n in e.sample.neurons
    ]  # fmt: skip
    drawn = [i for n in e.sample.neurons[:ROWS] for i in picture.exemplars_drawn(n, book)]
    known = {"photograph": PHOTO, "predicted": e.predicted_name, "probability": e.probability}
    known |= {"neurons": neurons, "share": e.sample.share, "layer size": size}
    known |= {"r_words": e.r_words, "patches": len(patches)}
    known |= {"photographs": len({source(name) for name in patches})}
    known |= {"credited": [*dict.fromkeys([PHOTO, *(source(patches[i]) for i in drawn)])]}
    known |= {"named": sum(name is not None for name in first)}
    known |= {"active": len(active), "on, active": on.mean().item()}
    own_names = {n["names"][0] for n in neurons if n["names"]}
    rest = [on[place[i]].item() for i in many if first[i] not in own_names]
    known |= {"many": len(many), "rest": len(rest)}
    known |= {"on, rest": sum(rest) / len(rest) if rest else None}
    known |= {"agreement": agreement(first, exemplars)}
    own = torch.tensor([n["index"] for n in neurons])
    union, noise = masks(region[torch.isin(active, own)])
    p = picture.probabilities(target, blurred(x, torch.cat([union[None], ~union[None], noise])))
    p = p[:, e.predicted]
    known |= {"area": union.double().mean().item(), "blurred": p[0].item(), "alone": p[1].item()}
    known |= {"random blurred": p[2:].mean().item(), "random as low": (p[2:] <= p[0]).sum().item()}
    sets = torch.cat([own[None], random_sets(active, own)])
    p = picture.without_neurons(target, x, LAYER, sets)[:, e.predicted]
    return known | {"without": p[0].item(), "without random": p[1:].mean().item()}


def article(word: str) -> str:
    """Return a word with its indefinite article, by its first letter."""
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def series(words: list[str], last: str = "and") -> str:
    """Return words as a series: a, b and c."""
    return f" {last} ".join(one for one in (", ".join(words[:-1]), words[-1]) if one)


def origin(known: dict) -> str:
    """Return sentences on where the names come from."""
    own = [n for n in known["neurons"] if n["names"]]
    if not own:
        return ""
    here, count = (sum(n[key] for n in own) for key in ("of the photograph", "patches"))
    remain = sum(n["names"][0] == n["name without"] for n in own)
    return (
        f"Names are untested: {here} of the {count} patches that gave them are of this photograph. "
        f"Without its patches, {remain or 'none'} of the {len(own)} neurons "
        f"{'keep' if remain > 1 else 'keeps'} the name."
    )


def verdict(known: dict) -> str:
    """Return a sentence that compares the regions with random pixels."""
    n, guess = known["random as low"], known["predicted"]
    if n == 0:
        return f"None of {DRAWS} random masks of that size lowers {guess} as much."
    return f"Of {DRAWS} random masks of that size {n} lower {guess} as much."


def caption(known: dict) -> str:
    """Return the caption: what the facts say, whichever they are."""
    neurons, guess = known["neurons"], known["predicted"]
    own = [n for n in neurons if n["names"]]
    words = [f"*{name}*" for name in dict.fromkeys(n["names"][0] for n in own)]
    words = series(words, "or") if own else ""
    here, count = (sum(n[key] for n in own) for key in ("of the photograph", "patches"))
    left = sum(n["names"][0] == n["name without"] for n in own)
    untested = f" {words}; names are untested, as {here} of the {count} patches that gave them are "
    untested += f"of this photograph, without which {left or 'none'} of these neurons "
    untested += "keep the name" if left > 1 else "keeps the name"
    where = series([share(n["on"]) for n in neurons])
    return (
        f"*Why is this {article(guess)}?* [EfficientNet-Lite0](docs/photographs.md), trained on "
        f"ImageNet, predicts it ({share(known['probability'])}). "
        f"**What**: {len(own) or 'None'} of the {len(neurons)} neurons that contribute most "
        f"{'is' if len(own) < 2 else 'are'} named{untested if own else ''}. "
        f"**Where**: {where} of their regions are on the {OBJECT}, of those of all active neurons "
        f"{share(known['on, active'])}. "
        f"**Why**: set to zero, they leave {guess} at {share(known['without'])}, as many random "
        f"active ones at {share(known['without random'])}. "
        f"**How sure**: with their regions blurred, {guess} is at {share(known['blurred'])}, with "
        f"as many random pixels at {share(known['random blurred'])}. "
        "[All figures](docs/trust.md)."
    )


def details(known: dict) -> str:
    """Return the facts that the caption leaves out."""
    neurons, agree = known["neurons"], known["agreement"]
    rest = f", and {share(known['on, rest'] or 0)} of the regions of the {known['rest']} among the "
    rest += f"{known['many']} largest contributors that are not named so"
    rest = rest if any(n["names"] for n in neurons) and known["rest"] else ""
    return (
        f"The README's first picture, *{known['predicted']}*: exemplars are {known['patches']} "
        f"patches of [{known['photographs']} photographs](photographs.md). {origin(known)} "
        f"{known['named']:,} of {known['layer size']:,} neurons have a name; "
        f"{share(agree['names'])} of their exemplars, which chose the names, are from photographs "
        f"that show the name (shuffled names {share(agree['shuffled'])}, best words "
        f"{share(agree['best'])}). On average {share(known['on, active'])} of the "
        f"regions of all {known['active']:,} neurons active there are on the {OBJECT}{rest}. "
        f"The {len(neurons)} neurons carry {share(known['share'])} of all contributions. Their "
        f"regions are {share(known['area'])} of the pixels. {verdict(known)}"
    )


def readme(text: str, known: dict) -> str:
    """Replace the picture and its caption in the README's text."""
    alt = (
        f"A photograph, predicted {known['predicted']}: three neurons with their names, regions, "
        "patches and shares; heatmaps of class and image; and the photograph with regions blurred"
    )
    credit = photographs.credit(known["credited"], "cropped, blurred, regions and maps overlaid")
    return picture.filled(text, BEGIN, END, f"![{alt}]({NAME}.png)", caption(known), credit)


# The picture ------------------------------------------------------------------------------------


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
    for x, head in (
        (0.2, "The decision"),
        (2.55, "What, where, why"),
        (5.95, "How sure: pixels blurred"),
    ):
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
    text(0.2, 5.1, style.fit("similarity of the two heatmaps: neurons that contribute to the class "
                             "and those that contribute here", 2.1, lines=3),
         colour=GREY)  # fmt: skip
    for place, n in enumerate(known["neurons"][:ROWS]):
        said = [
            f"{'untested; ' if n['names'] else ''}{share(n['on'])} on the {OBJECT},",
            f"higher than {share(n['higher than'])} of active neurons",
        ]
        picture.neuron(figure, e, place, 0.92 + place * 1.32, book, said)
    text(2.55, 4.95, style.fit(origin(known), 3.1, BODY, lines=4), size=BODY)
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
    head = f"blurred (regions: {share(known['area'])} of the pixels)"
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
        f"{TOP} neurons zero": known["without"],
        f"{TOP} random active": known["without random"],
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
    encoder, probe = photographs.encoder(), photographs.patches()
    book, without = (named(target, encoder, one) for one in (probe, others(probe)))
    photos = images.folder(photographs.PHOTOS, progress=False)
    image = photos.image(photos.names.index(PHOTO))
    e, x = book.explain(image, top=TOP), target.preprocess(image)
    many = [n.index for n in book.explain(image, top=MANY).sample.neurons]
    known = facts(target, book, without, e, many, x)
    union, noise = masks(torch.stack([n.region for n in e.sample.neurons]))
    tried = blurred(x, torch.stack([union, noise[0], ~union]))
    seen = [targets.denormalize(target, e.image, one) for one in tried]
    path = ROOT / "README.md"
    text = readme(path.read_text(encoding="utf-8"), known)
    picture.write(draw(known, e, book, seen), known, NAME, path, text, 100)
    text = picture.filled(TRUST.read_text(encoding="utf-8"), BEGIN, END, details(known))
    TRUST.write_text(text, encoding="utf-8")
    print(caption(known))


if __name__ == "__main__":
    main()
