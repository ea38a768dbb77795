"""Name neurons by the concepts whose text features are nearest to their exemplars.

Both cosines of WWW, Eq. 1 are linear in the exemplar, so exemplar features are averaged first and
one (N, D) x (D, M) product scores N neurons against M concepts. The template term is the same for
every concept: it leaves the ranking unchanged and only affects how many concepts are selected.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wwwlib.registry import whole_number

BLOCK = 2**27  # most scores held at once, at least those of a neuron: 512 MiB in float32
STABLE = 0.5  # a name is stable if at least this share of bootstrap probe sets gives it again
LEVEL = 0.05  # a name is supported if chance exceeds its AUROC with a smaller probability


@dataclass(frozen=True, eq=False, repr=False)
class NameTests:
    """Tests of the first name of N neurons; nan where it was not tested.

    Attributes
    ----------
    auroc, pearson : Tensor of float64, shape (N,)
        Of the first name, see the functions of `evaluation`.
    rank : Tensor of int64, shape (N,)
        Place of its AUROC among those of all tested concepts, from 1; 0 if it was not tested.
    p : Tensor of float64, shape (N,)
        Probability of so high an AUROC by chance (Mann-Whitney test, one-sided).
    best_auroc : Tensor of float64, shape (N,)
        The highest AUROC of any concept, and the concept in `best`.
    shuffled : float
        Mean AUROC of the names of other neurons: what names are worth that fit nothing in
        particular.
    best : tuple of str
    concepts, images : int
        Numbers of tested concepts and images.
    """

    auroc: Tensor
    pearson: Tensor
    rank: Tensor
    p: Tensor
    best_auroc: Tensor
    shuffled: float
    best: tuple[str, ...]
    concepts: int
    images: int

    def supported(self, i: int) -> bool | None:
        """Whether the name of neuron i does better than chance; None if it was not tested."""
        return bool(self.p[i] < LEVEL) if self.rank[i] else None

    def words(self, i: int) -> str:
        """Return the test of neuron i as text, such as "AUROC .98, 1st of 103"."""
        if not self.rank[i]:
            return "untested"
        value, rank = f"{self.auroc[i].item():.2f}".removeprefix("0"), int(self.rank[i])
        suffix = {1: "st", 2: "nd", 3: "rd"}.get(rank % 10 * (rank // 10 % 10 != 1), "th")
        return f"AUROC {value}, {rank}{suffix} of {self.concepts}"


@dataclass(frozen=True)
class ConceptTable:
    """Names of N neurons.

    Attributes
    ----------
    names : list of list of str
        Concepts of each neuron, best first; empty if it abstains.
    scores : list of list of float
        Scores aligned with `names`.
    threshold : Tensor
        (N,) lowest score that is selected; 0 if the neuron abstains.
    abstained : Tensor
        (N,) bool, whether no concept scores higher than the bare template.
    tests : evaluation.NameTests or None
        Tests of the first names on other images; None if they were not tested.
    """

    names: list[list[str]]
    scores: list[list[float]]
    threshold: Tensor
    abstained: Tensor
    tests: NameTests | None = None

    def __len__(self) -> int:
        """Return the number N of neurons."""
        return len(self.names)

    def test_words(self, i: int) -> str:
        """Return the test of neuron i's first name, such as "AUROC .98, 1st of 103"."""
        return "untested" if self.tests is None else self.tests.words(i)

    def supported(self, i: int) -> bool | None:
        """Whether neuron i's first name does better than chance; None if it was not tested."""
        return None if self.tests is None else self.tests.supported(i)


def score(v: Tensor, t: Tensor, t0: Tensor | None = None) -> Tensor:
    """Compute concept scores ``s_j = mean_o [cos(v_o, t_j) - cos(v_o, t0)]``.

    Parameters
    ----------
    v : Tensor
        (N, K, D) unit-norm features of the exemplars, or their mean over exemplars (N, D).
    t : Tensor
        (M, D) unit-norm features of the concepts in their template.
    t0 : Tensor, optional
        (D,) unit-norm feature of the bare template; None omits the template term.

    Returns
    -------
    Tensor
        (N, M) scores in [-2, 2], with device and dtype of the inputs.

    Raises
    ------
    ValueError
        If the shapes do not match.

    References
    ----------
    WWW, Eq. 1.

    Examples
    --------
    One neuron with two exemplars, two concepts:

    >>> v = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    >>> t = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> score(v, t, t0=torch.tensor([0.0, 1.0]))
    tensor([[0.4000, 0.0000]])
    """
    _check_shapes(v, t, t0)
    mean = v.mean(1) if v.ndim == 3 else v
    s = mean @ t.T
    return s if t0 is None else s.sub_((mean @ t0).unsqueeze(1))


def select(s: Tensor, alpha: float | Tensor = 0.95) -> list[Tensor]:
    """Select the concepts that score at least `alpha` times the maximum of their neuron.

    Parameters
    ----------
    s : Tensor
        (N, M) scores.
    alpha : float or Tensor
        In (0, 1]: .95 for major and .90 for minor concepts in the paper; 1 selects the best
        concept and its ties. A tensor (N,) sets it per neuron; nan makes a neuron abstain.

    Returns
    -------
    list of Tensor
        Selected indices of each neuron, best first, ties by index. Empty (the neuron abstains) if
        the maximum is not positive or not finite. NaN is never selected.

    Raises
    ------
    ValueError
        If `alpha` is outside (0, 1] or `s` is not a matrix.

    References
    ----------
    WWW, Eq. 2.
    """
    return [index for index, _ in _ranked(s, _threshold(s, alpha))]


def discover(
    v: Tensor, t: Tensor, t0: Tensor | None, words: Sequence[str], alpha: float = 0.95
) -> ConceptTable:
    """Name neurons: score and select concepts, one block of neurons at a time.

    Parameters
    ----------
    v : Tensor
        (N, K, D) unit-norm features of the exemplars, or their mean (N, D).
    t : Tensor
        (M, D) unit-norm features of the concepts.
    t0 : Tensor or None
        (D,) unit-norm feature of the bare template.
    words : sequence of str
        The M concepts.
    alpha : float
        In (0, 1], see `select`.

    Returns
    -------
    ConceptTable

    Raises
    ------
    ValueError
        If shapes do not match, `words` has another length than `t`, or `alpha` is outside (0, 1].

    References
    ----------
    WWW, section 3.2.
    """
    _check_shapes(v, t, t0)
    if len(words) != len(t):
        raise ValueError(f"There are {len(words)} words for {len(t)} features; give those words.")
    names, scores, thresholds = [], [], [v.new_zeros(0)]
    for part in v.split(max(1, BLOCK // len(t))):
        s = score(part, t, t0)
        threshold = _threshold(s, alpha)
        for index, value in _ranked(s, threshold):
            names.append([words[j] for j in index.tolist()])
            scores.append(value.tolist())
        thresholds.append(threshold)
    threshold = torch.cat(thresholds)
    abstained = threshold.isnan()
    return ConceptTable(names, scores, threshold.masked_fill(abstained, 0.0), abstained)


@dataclass(frozen=True, eq=False)
class Stability:
    """Stability of each neuron's top concept under resampling of the probe set.

    Attributes
    ----------
    top : Tensor of int64, shape (N,)
        Index of the top concept on the whole probe set; -1 if the neuron abstains.
    share : Tensor of float64, shape (N,)
        Share of the bootstrap probe sets with the same top concept, in [0, 1].
    """

    top: Tensor
    share: Tensor

    @property
    def kept(self) -> float:
        """Share of the neurons with the same top concept on every bootstrap probe set."""
        return (self.share == 1).double().mean().item()


def bootstrap_depth(k: int, images: int) -> int:
    """Return the number of best images per neuron that `stability` needs for K exemplars.

    A bootstrap sample contains 63 % of the images, so K exemplars lie among the best 1.6 K on
    average; three times K plus twenty is practically never exceeded.
    """
    return min(images, 3 * k + 20)


def stability(
    v: Tensor,
    index: Tensor,
    images: int,
    t: Tensor,
    t0: Tensor | None,
    k: int,
    rounds: int = 20,
    seed: int = 0,
    rows: Tensor | None = None,
) -> Stability:
    """Name neurons again on bootstrap probe sets, without running the network.

    The exemplars of a resampled probe set are almost surely among the few K best images of the
    whole set, so it suffices to count how often each of those was drawn.

    Parameters
    ----------
    v : Tensor
        (N, L, D) features of each neuron's L best images, best first, with L at least
        `bootstrap_depth`; or, with `rows`, (U, D) features of the distinct images among them.
    index : Tensor
        (N, L) their indices in the probe set; -1 for a missing image.
    images : int
        Number of images of the probe set.
    t, t0 : Tensor
        (M, D) and (D,) features of the concepts and the bare template.
    k : int
        Exemplars per neuron.
    rounds : int
        Number of bootstrap probe sets, at least 1.
    seed : int
        Seed of the resampling.
    rows : Tensor, optional
        (N, L) the row of `v` that holds each image.

    Returns
    -------
    Stability

    Raises
    ------
    ValueError
        If `rounds` is less than 1, or a bootstrap probe set needs more than the L best images.
    """
    whole_number("rounds", rounds)
    if rows is None:
        rows, v = torch.arange(index.numel()).view(index.shape), v.flatten(0, 1)
    generator = torch.Generator().manual_seed(seed)
    present = index.clamp(min=0)  # a missing image has a zero feature, so its count is irrelevant
    first = torch.zeros(index.shape).index_fill(1, torch.arange(min(k, index.shape[1])), 1.0)
    top = _top(v, rows, first, k, t, t0)
    same = torch.zeros(len(index), dtype=torch.float64)
    for _ in range(rounds):
        drawn = torch.randint(images, (images,), generator=generator)
        count = drawn.bincount(minlength=images)[present]
        weight = torch.minimum(count, (k - count.cumsum(1) + count).clamp(min=0)).float()
        enough = weight.sum(1)[(index >= 0).all(1)]  # a constant neuron has no image
        if index.shape[1] < images and len(enough) and (short := enough.min()) < k:
            raise ValueError(
                f"A bootstrap probe set has {int(short)} of {k} exemplars among a neuron's "
                f"{index.shape[1]} best images; give more of them, such as {3 * k + 20}."
            )
        same += (_top(v, rows, weight, k, t, t0) == top).double()
    return Stability(top, same / rounds)


def _top(v: Tensor, rows: Tensor, weight: Tensor, k: int, t: Tensor, t0: Tensor | None) -> Tensor:
    """Return the best concept (N,) of exemplars with multiplicities `weight` (N, L), or -1."""
    mean = F.embedding_bag(rows, v, mode="sum", per_sample_weights=weight.to(v)) / k
    tops = [mean.new_zeros(0, dtype=torch.int64)]
    for part in mean.split(max(1, BLOCK // len(t))):
        best, top = score(part, t, t0).max(1)
        tops.append(torch.where(best > 0, top, -1))
    return torch.cat(tops)


def _threshold(s: Tensor, alpha: float | Tensor) -> Tensor:
    """Return the lowest selected score (N,); NaN, which no score reaches, makes a row abstain."""
    if s.ndim != 2 or s.shape[1] == 0:
        raise ValueError(f"The scores are {tuple(s.shape)}; expected a matrix (N, M) with M >= 1.")
    each = torch.as_tensor(alpha).double()
    if ((each <= 0) | (each > 1)).any() or (each.ndim == 0 and each.isnan()):
        raise ValueError(f"alpha = {alpha} lies outside (0, 1]; the paper uses .95, minor .90.")
    if each.ndim and each.shape != s.shape[:1]:
        raise ValueError(f"{tuple(each.shape)} alphas do not match {len(s)} neurons; give as many.")
    best = s.amax(1)
    damaged = best.isnan()  # a NaN makes the maximum NaN; other concepts of the row still count
    if damaged.any():
        best[damaged] = s[damaged].nan_to_num(nan=-torch.inf, posinf=torch.inf).amax(1)
    return torch.where((best > 0) & best.isfinite(), alpha * best, torch.nan)


def _ranked(s: Tensor, threshold: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return indices and scores at or above the threshold of each row, best first.

    Only selected scores are sorted, and a stable sort keeps ties in the order of their index.
    """
    row, column = (s >= threshold.unsqueeze(1)).nonzero(as_tuple=True)
    counts = row.bincount(minlength=len(s)).tolist()
    ranked = []
    for index, value in zip(column.split(counts), s[row, column].split(counts), strict=True):
        order = value.argsort(descending=True, stable=True)
        ranked.append((index[order], value[order]))
    return ranked


def _check_shapes(v: Tensor, t: Tensor, t0: Tensor | None) -> None:
    if v.ndim not in (2, 3) or t.ndim != 2 or v.shape[-1] != t.shape[1] or len(t) == 0:
        raise ValueError(
            f"Exemplar features {tuple(v.shape)} and concept features {tuple(t.shape)} do not "
            "match: expected (N, K, D) or (N, D) and (M, D) of one encoder, with M >= 1."
        )
    if v.ndim == 3 and v.shape[1] == 0:
        raise ValueError("There are no exemplars (K = 0); collect at least one for each neuron.")
    if t0 is not None and t0.shape != t.shape[1:]:
        raise ValueError(f"t0 has the shape {tuple(t0.shape)}; expected {(t.shape[1],)}.")
