"""Tests of neuron names on images that did not choose them.

A name is a hypothesis: the neuron responds to what it names. `Truth` holds which images show which
concepts, from pixel masks, class folders, or images drawn for each concept. The measures compare
activations with presence, for all neurons and concepts at once. `evaluate` adds tests to a table
of names; `verify` chooses among candidates by one half of the images and tests on the other half.

AUROC and MAD are the measures of CoSy (Kopf et al., NeurIPS 2024). Pearson correlation, cosine,
AUPRC, F1 and IoU are those that pass the checks of NeuronEval (Oikarinen et al., ICML 2025): fewer
and additional labels must lower a score.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.concepts import ConceptTable, NameTests
from wwwlib.contributions import forward
from wwwlib.distributed import Options, Pass, State, concatenate, run
from wwwlib.images import ImageSet, check_apart, crops, halves, subset
from wwwlib.images.image_set import Box, box_pixels
from wwwlib.language.concept_sets import fold
from wwwlib.targets import Target

LOOSE = 0.4  # alpha of the candidates among which a verified name is chosen
BAR = 0.1  # lowest Pearson correlation of a verified name
_BLOCK = 2**23  # values of a block of neurons: 64 MiB in float64
_SEPARATORS = str.maketrans("_-/", "   ")


# Measures -----------------------------------------------------------------------------------------


def auroc(z: Tensor, present: Tensor) -> Tensor:
    """Probability that an image with the concept activates a neuron more than one without.

    Parameters
    ----------
    z : Tensor
        (I, N) activations of N neurons on I images.
    present : Tensor
        (I, M) bool, whether image i shows concept j.

    Returns
    -------
    Tensor
        (N, M) float64 in [0, 1]; equal activations count half. NaN for a concept that all or no
        images show, and for a neuron with values that are not finite.

    Raises
    ------
    ValueError
        If the shapes do not match or `present` is not bool.

    References
    ----------
    Kopf et al., "CoSy: Evaluating textual explanations of neurons", NeurIPS 2024.

    Examples
    --------
    Of the four pairs of an image with the concept and one without, three are in the right order:

    >>> z = torch.tensor([[0.9], [0.4], [0.6], [0.1]])
    >>> auroc(z, torch.tensor([[True], [True], [False], [False]]))
    tensor([[0.7500]], dtype=torch.float64)
    """

    def block(z: Tensor, c: Tensor, count: Tensor) -> Tensor:
        first, last = _places(z)
        ranks = (first + last + 1).double().T / 2  # of equal values, the mean of their ranks
        return (ranks @ c - count * (count + 1) / 2) / (count * (len(z) - count))

    return measured(block, z, present)


def mad(z: Tensor, present: Tensor) -> Tensor:
    """Difference of mean activation with and without the concept, in standard deviations without.

    Parameters, errors and references are those of `auroc`.

    Returns
    -------
    Tensor
        (N, M) float64; NaN as in `auroc`, and where the images without the concept activate a
        neuron all alike.
    """

    def block(z: Tensor, c: Tensor, count: Tensor) -> Tensor:
        z = z.double() - z.double().mean(0)
        rest = len(z) - count
        inside = z.T @ c
        outside = z.sum(0)[:, None] - inside
        squares = (z**2).sum(0)[:, None] - (z**2).T @ c
        variance = (squares / rest - (outside / rest) ** 2).clamp(min=0)
        flat = variance <= 1e-12 * (z**2).mean(0)[:, None]
        return (inside / count - outside / rest) / variance.masked_fill(flat, torch.nan).sqrt()

    return measured(block, z, present)


def average_precision(z: Tensor, present: Tensor) -> Tensor:
    """Average precision of retrieving the images of a concept by activation.

    Parameters, errors and NaN are those of `auroc`.

    Returns
    -------
    Tensor
        (N, M) float64 in (0, 1]: mean over the images of the concept of the share of them among
        the images that activate the neuron at least as much.
    """

    def block(z: Tensor, c: Tensor, count: Tensor) -> Tensor:
        concept, image = c.T.nonzero(as_tuple=True)
        at_least = len(z) - _places(z)[0]  # images with this activation or a higher one
        start = (count.cumsum(0) - count)[concept]
        rows = []
        for reach in at_least.T:
            key = concept * (len(z) + 1) + reach[image]
            hits = torch.searchsorted(key.sort().values, key, right=True) - start
            precision = hits / reach[image]
            rows.append(torch.zeros_like(count).scatter_add_(0, concept, precision) / count)
        return torch.stack(rows)

    return measured(block, z, present)


def pearson(z: Tensor, present: Tensor) -> Tensor:
    """Pearson correlation of activation and presence.

    Parameters, errors and NaN are those of `auroc`; a constant neuron is NaN as well.

    Returns
    -------
    Tensor
        (N, M) float64 in [-1, 1].
    """

    def block(z: Tensor, c: Tensor, count: Tensor) -> Tensor:
        return _cosine(z.double() - z.double().mean(0), c - count / len(z))

    return measured(block, z, present)


def cosine(z: Tensor, present: Tensor) -> Tensor:
    """Cosine of activation and presence.

    As `pearson` without centring: activations far from zero everywhere favour frequent concepts.
    """
    return measured(lambda z, c, count: _cosine(z.double(), c), z, present)


def measured(block: Callable, z: Tensor, present: Tensor) -> Tensor:
    """Apply ``block(z, c, count)``, one block of neurons after the other."""
    if z.ndim != 2 or present.ndim != 2 or len(z) != len(present) or not z.numel():
        shapes = f"{tuple(z.shape)} and present {tuple(present.shape)}"
        raise ValueError(f"z has shape {shapes}; expected (I, N) and (I, M), with the same I.")
    if present.dtype != torch.bool:
        raise ValueError(f"present is {present.dtype}; give bool, true where an image shows it.")
    c = present.to(z.device, torch.float64)
    count, finite = c.sum(0), z.isfinite().all(0)
    parts = z.split(max(1, _BLOCK // len(z)), 1)
    found = torch.cat([block(part.nan_to_num(0, 0, 0), c, count) for part in parts])
    decided = finite[:, None] & (count > 0) & (count < len(z))
    return found.masked_fill(~decided.view(*decided.shape, *[1] * (found.ndim - 2)), torch.nan)


def _places(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each value of a column how many are smaller, and how many are not larger."""
    columns = z.T.contiguous()
    ordered = columns.sort(1).values
    first = torch.searchsorted(ordered, columns)
    return first.T, torch.searchsorted(ordered, columns, right=True).T


def _cosine(z: Tensor, c: Tensor) -> Tensor:
    sizes = z.norm(dim=0)[:, None] * c.norm(dim=0)
    return ((z.T @ c) / sizes.masked_fill(sizes == 0, torch.nan)).clamp(-1, 1)


# Truth --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Truth:
    """Which of I images show which of M concepts.

    Attributes
    ----------
    images : ImageSet
        The I images; they should not be among those that chose the names.
    words : tuple of str
        The M concepts; synonyms are concepts of equal presence.
    present : Tensor of bool, shape (I, M)
    known : Tensor of bool, shape (I, M), or None
        Where presence is known; None everywhere.
    crops : Truth or None
        The same for crops of the images, which test minor concepts.
    """

    images: ImageSet
    words: tuple[str, ...]
    present: Tensor
    known: Tensor | None = None
    crops: "Truth | None" = None

    def __post_init__(self) -> None:
        expected = (len(self.images), len(self.words))
        if self.present.shape != expected or self.present.dtype != torch.bool:
            raise ValueError(
                f"present is {self.present.dtype} {tuple(self.present.shape)}; expected bool "
                f"{expected}, for {expected[0]} images and {expected[1]} concepts."
            )

    def __repr__(self) -> str:
        return f"Truth({self.images.name!r}: {len(self.images)} images, {len(self.words)} concepts)"

    def columns(self, words: Iterable[str]) -> list[int | None]:
        """Return the column of each word, whatever its case and separators; None without one."""
        place = {_plain(word): j for j, word in enumerate(self.words)}
        return [place.get(_plain(word)) for word in words]

    def subset(self, indices: Sequence[int]) -> "Truth":
        """Return the truth of some of the images, without crops."""
        known = None if self.known is None else self.known[indices]
        return Truth(subset(self.images, indices), self.words, self.present[indices], known)

    def counts(self) -> tuple[Tensor, Tensor]:
        """Return the numbers (M,) of images with and without each concept, where it is known."""
        known = torch.ones_like(self.present) if self.known is None else self.known
        return (self.present & known).sum(0).double(), (~self.present & known).sum(0).double()

    def apply(self, measure: Callable[[Tensor, Tensor], Tensor], z: Tensor) -> Tensor:
        """Return a measure (N, M) of activations z (I, N), each concept where it is known."""
        if self.known is None:
            return measure(z, self.present)
        columns = zip(self.known.T, self.present.T, strict=True)
        return torch.cat([measure(z[at], one[at, None]) for at, one in columns], 1)


def from_masks(
    images: ImageSet,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    least: float = 0.0,
    boxes: Sequence[Box] = (),
    least_in_crops: float = 0.02,
    **options: Any,
) -> Truth:
    """Make a truth of pixel masks.

    Parameters
    ----------
    images : ImageSet
        A set whose masks are known.
    synonyms : mapping of str to sequence of str, optional
        Further words of a concept.
    least, least_in_crops : float in [0, 1)
        An image or a crop shows a concept if it covers more than this share of the pixels.
    boxes : sequence of (left, top, right, bottom)
        Crops, such as `images.FIVE_CROPS`, that test minor concepts; none by default.
    **options
        Fields of `distributed.Options`. A store keeps the presence.

    Returns
    -------
    Truth

    Raises
    ------
    ValueError
        If the images have no masks.
    """
    how, masks = Options(**options), images.known_masks
    place = {word: j for j, word in enumerate(masks.categories)}

    def make(_: object) -> tuple[dict[str, Tensor], dict]:
        covered = torch.zeros(len(images), 1 + len(boxes), len(place))
        for i in tqdm(range(len(images)), desc="masks", disable=not how.progress):
            for word, mask in masks(i).items():
                edges = [(0, 0, None, None), *(box_pixels(box, *mask.shape[::-1]) for box in boxes)]
                shares = [mask[y:to, x:end].mean() for x, y, end, to in edges]
                covered[i, :, place[word]] = torch.tensor(shares)
        return {"covered": covered}, {}

    key = {"images": images.fingerprint, "masks": masks.fingerprint, "boxes": [*map(list, boxes)]}
    covered = how.store.fetch("presence", key, make).tensors["covered"]
    column = dict(place)
    for word, others in (synonyms or {}).items():
        for other in others if word in place else ():
            column.setdefault(other, place[word])
    covered, words = covered[:, :, [*column.values()]], tuple(column)
    inside = covered[:, 1:].flatten(0, 1) > least_in_crops
    small = Truth(crops(images, boxes), words, inside) if boxes else None
    return Truth(images, words, covered[:, 0] > least, crops=small)


def from_labels(images: ImageSet, synonyms: Sequence[Sequence[str]] | None = None) -> Truth:
    """Make a truth of class labels: an image shows its class and no other.

    Parameters
    ----------
    images : ImageSet
        Images without a label are left out.
    synonyms : sequence of sequence of str, optional
        The words of each class, by default its name. A word of several classes stands for each.

    Raises
    ------
    ValueError
        If no image has a label, or there are not synonyms for each class.
    """
    kept = [i for i, label in enumerate(images.labels) if label is not None]
    if not kept:
        raise ValueError(f"No image of {images.name!r} has a label; use one folder per class.")
    synonyms = [[name] for name in images.classes] if synonyms is None else synonyms
    if len(synonyms) != len(images.classes):
        raise ValueError(f"There are {len(synonyms)} synonyms for {len(images.classes)} classes.")
    words = tuple(dict.fromkeys(word for own in synonyms for word in own))
    means = torch.tensor([[word in own for word in words] for own in map(set, synonyms)])
    some = subset(images, kept) if len(kept) < len(images) else images
    return Truth(some, words, means[list(some.labels)])


# Tests of names -----------------------------------------------------------------------------------


@torch.inference_mode()
def name_tests(names: Sequence[Sequence[str]], z: Tensor, truth: Truth) -> NameTests:
    """Test the first names of N neurons.

    Parameters
    ----------
    names : sequence of sequence of str
        Names of each neuron, best first. A neuron without names, or whose first name is no concept
        of the truth, is untested.
    z : Tensor
        (I, N) activations on the images of the truth.
    truth : Truth
    """
    every = truth.apply(auroc, z).cpu()
    columns = truth.columns(own[0] if own else "" for own in names)
    at, found = torch.tensor([[j or 0, j is not None] for j in columns]).T
    present, absent = truth.counts()

    def of_name(values: Tensor) -> Tensor:
        return values.cpu().gather(1, at[:, None])[:, 0].masked_fill(found == 0, torch.nan)

    own = of_name(every)
    tested = own.isfinite()
    others = every[tested][:, at[tested]]
    pairs = len(others) * (len(others) - 1)
    deviation = ((present + absent + 1) / (12 * present * absent))[at].sqrt()
    best_auroc, best = every.nan_to_num(nan=-1).max(1)
    return NameTests(
        auroc=own,
        pearson=of_name(truth.apply(pearson, z)),
        rank=(1 + (every > own[:, None]).sum(1)).where(tested, 0),
        p=torch.special.ndtr((0.5 - own) / deviation),
        best_auroc=best_auroc.masked_fill(best_auroc < 0, torch.nan),
        shuffled=(others.sum() - others.diagonal().sum()).item() / pairs if pairs else torch.nan,
        best=tuple(truth.words[j] for j in best.tolist()),
        concepts=int(every.isfinite().any(0).sum()),
        images=len(truth.images),
    )


def evaluate(
    tables: Mapping[str, ConceptTable],
    target: Target,
    truth: Truth,
    probe: ImageSet | None = None,
    **options: object,
) -> dict[str, ConceptTable]:
    """Test the names of layers, in one pass over the images of the truth.

    Parameters
    ----------
    tables : mapping of str to ConceptTable
        Names by layer.
    target : Target
    truth : Truth
    probe : ImageSet, optional
        The images that chose the names.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict of str to ConceptTable
        The tables with `tests`.

    Raises
    ------
    ValueError
        If probe set and truth share an image.
    """
    if probe is not None:
        check_apart(probe, truth.images)
    z = activations(target, truth.images, list(tables), **options)
    return {n: replace(t, tests=name_tests(t.names, z[n], truth)) for n, t in tables.items()}


@torch.inference_mode()
def verify(
    candidates: ConceptTable, z: Tensor, truth: Truth, bar: float = BAR, seed: int = 0
) -> ConceptTable:
    """Choose among candidate names by one half of the images, and test on the other half.

    Parameters
    ----------
    candidates : ConceptTable
        Names of N neurons, of a small alpha.
    z : Tensor
        (I, N) activations on the images of the truth.
    truth : Truth
        Each half has half the images of each class.
    bar : float
        Neurons without a candidate of at least this Pearson correlation abstain.
    seed : int
        Seed of the random halves.

    Returns
    -------
    ConceptTable
        At most one name for each neuron, its score the correlation on the half that chose it;
        `tests` are of the other half.
    """
    choosing, testing = halves(truth.images.labels, seed)
    fit = truth.subset(choosing).apply(pearson, z[choosing])
    names, scores = [], []
    for own, row in zip(candidates.names, fit.tolist(), strict=True):
        pairs = zip(own, truth.columns(own), strict=True)
        known = [(row[j], word) for word, j in pairs if j is not None and row[j] >= bar]
        score, word = max(known, key=lambda pair: pair[0], default=(0.0, ""))
        names.append([word] if word else [])
        scores.append([score] if word else [])
    abstained = torch.tensor([not own for own in names])
    tests = name_tests(names, z[testing], truth.subset(testing))
    return ConceptTable(names, scores, torch.full((len(names),), bar), abstained, tests)


def activations(
    target: Target, images: ImageSet, layers: Sequence[str], **options: object
) -> dict[str, Tensor]:
    """Compute the neuron activations of layers on all images of a set.

    Parameters
    ----------
    target : Target
    images : ImageSet
        I images.
    layers : sequence of str
        Names from ``target.layers()``; all are captured in one pass.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict of str to Tensor
        z (I, N) float32 of each layer, on the CPU.
    """

    @torch.inference_mode()
    def step(layers: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        captured = forward(target, x, layers)[1]
        return {layer: {"z": captured[layer].z.float().cpu()} for layer in layers}

    found = run(Pass(target, images, layers, step, concatenate, "activations"), **options)
    return {layer: found[layer]["z"] for layer in layers}


def _plain(word: str) -> str:
    return " ".join(fold(word).translate(_SEPARATORS).split())
