"""WHAT a neuron sees: the concepts nearest to its exemplars, once the template is discounted.

Both cosines of WWW, Eq. 1 are linear in the exemplar, so the exemplars are averaged first and one
(N, D) x (D, M) product scores N neurons against M concepts. The template's own cosine is the same
for every concept: it never changes the ranking, only how many concepts are kept, and whether any.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 2**27  # scores held at once by discover: 512 MiB in float32


@dataclass(frozen=True)
class ConceptTable:
    """The names of N neurons.

    Attributes
    ----------
    names : list of list of str
        For each neuron its concepts, best first; empty where it abstains.
    scores : list of list of float
        Their scores, aligned with ``names``.
    threshold : Tensor
        (N,) the score from which on a concept was kept; 0 where the neuron abstains, since no
        concept scores above it.
    abstained : Tensor
        (N,) bool, whether no concept fits better than the bare template does.
    """

    names: list[list[str]]
    scores: list[list[float]]
    threshold: Tensor
    abstained: Tensor

    def __len__(self) -> int:
        """Return the number N of neurons."""
        return len(self.names)


def score(v: Tensor, t: Tensor, t0: Tensor | None = None) -> Tensor:
    """Score M concepts for N neurons: ``s_j = mean_o [cos(v_o, t_j) - cos(v_o, t0)]``.

    Parameters
    ----------
    v : Tensor
        (N, K, D) unit-norm features of the exemplars, or their mean over exemplars (N, D).
    t : Tensor
        (M, D) unit-norm features of the concepts in their template.
    t0 : Tensor, optional
        (D,) unit-norm feature of the bare template; ``None`` leaves the plain cosine.

    Returns
    -------
    Tensor
        (N, M) scores in [-2, 2], on the device and in the dtype of the inputs.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    References
    ----------
    WWW, Eq. 1.
    """
    _check_shapes(v, t, t0)
    mean = v.mean(1) if v.ndim == 3 else v
    s = mean @ t.T
    return s if t0 is None else s.sub_((mean @ t0).unsqueeze(1))


def select(s: Tensor, alpha: float | Tensor = 0.95) -> list[Tensor]:
    """Keep every concept that scores at least ``alpha`` times the neuron's best.

    Parameters
    ----------
    s : Tensor
        (N, M) scores.
    alpha : float or Tensor
        In (0, 1]: .95 for major and .90 for minor concepts in the paper; 1 keeps the best alone,
        and what ties with it. A tensor (N,) gives each neuron its own; nan makes it abstain.

    Returns
    -------
    list of Tensor
        For each neuron the indices kept, best first, the lower index first among equals. Empty
        (the neuron abstains) where the best score is not positive or not finite. A NaN is never
        kept.

    Raises
    ------
    ValueError
        If ``alpha`` lies outside (0, 1] or ``s`` is not a matrix.

    References
    ----------
    WWW, Eq. 2.
    """
    return [index for index, _ in _ranked(s, _threshold(s, alpha))]


def cut(s: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Keep the best concepts of every neuron, as many as are asked for.

    Parameters
    ----------
    s : Tensor
        (N, M) scores.
    sizes : sequence of int
        N numbers of concepts, such as those that another score selected.

    Returns
    -------
    list of Tensor
        For each neuron the indices kept, best first, the lower index first among equals.

    Raises
    ------
    ValueError
        If there is not one size for each neuron, in [0, M].
    """
    if len(sizes) != len(s) or not all(0 <= size <= s.shape[1] for size in sizes):
        raise ValueError(
            f"{len(sizes)} sizes from {min(sizes, default=0)} to {max(sizes, default=0)} do not "
            f"fit scores of shape {tuple(s.shape)}; give each neuron one, from 0 to all concepts."
        )
    order = s.argsort(dim=1, descending=True, stable=True)
    return [row[:size] for row, size in zip(order, sizes, strict=True)]


def cut_together(s: Tensor, total: int) -> list[Tensor]:
    """Keep the best concepts of all neurons together: one threshold for all, not one for each.

    Parameters
    ----------
    s : Tensor
        (N, M) finite scores.
    total : int
        How many are kept in all, in [0, N M]; more where the last of them are equal.

    Returns
    -------
    list of Tensor
        For each neuron the indices kept, best first; empty where others score higher throughout.
    """
    if not total:
        return [s.new_zeros(0, dtype=torch.int64) for _ in s]
    threshold = s.flatten().topk(total).values[-1]
    return [index for index, _ in _ranked(s, threshold.expand(len(s)))]


def discover(
    v: Tensor,
    t: Tensor,
    t0: Tensor | None,
    words: Sequence[str],
    alpha: float = 0.95,
    block: int = BLOCK,
) -> ConceptTable:
    """Name N neurons: score, select, and look up the words, a block of neurons at a time.

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
        In (0, 1], see :func:`select`.
    block : int
        The most scores held at once; a single neuron's M scores always fit.

    Returns
    -------
    ConceptTable

    Raises
    ------
    ValueError
        If shapes do not fit together, ``words`` has not one entry for each row of ``t``, or
        ``alpha`` lies outside (0, 1].
    """
    _check_shapes(v, t, t0)
    if len(words) != len(t):
        raise ValueError(
            f"There are {len(words)} words for {len(t)} concept features; give the words that "
            "were embedded, in that order."
        )
    names, scores, thresholds = [], [], [v.new_zeros(0)]
    for part in v.split(max(1, block // len(t))):
        s = score(part, t, t0)
        threshold = _threshold(s, alpha)
        for index, value in _ranked(s, threshold):
            names.append([words[j] for j in index.tolist()])
            scores.append(value.tolist())
        thresholds.append(threshold)
    threshold = torch.cat(thresholds)
    abstained = threshold.isnan()
    return ConceptTable(names, scores, threshold.masked_fill(abstained, 0.0), abstained)


def plain_alpha(alpha: float, template: Tensor, best: Tensor) -> Tensor:
    """Return the alpha at which plain cosine selects as the template-corrected score does.

    ``1 - (1 - alpha) (1 - c / max)``: the correction amounts to a stricter alpha, neuron by
    neuron.

    Parameters
    ----------
    alpha : float
        The corrected score's alpha, in (0, 1].
    template : Tensor
        (N,) each neuron's mean cosine c with the bare template.
    best : Tensor
        (N,) each neuron's best plain cosine.

    Returns
    -------
    Tensor
        (N,) alphas in (0, 1]; nan where there is none: where no word beats the bare template, so
        that the neuron abstains, or where no cosine is positive, of which alpha could take a share.
    """
    found = 1 - (1 - alpha) * (1 - template / best)
    return found.masked_fill((best <= template) | (found <= 0) | (found > 1), torch.nan)


def _threshold(s: Tensor, alpha: float | Tensor) -> Tensor:
    """Return (N,) scores from which on concepts are kept: NaN, which none reaches, to abstain."""
    if s.ndim != 2 or s.shape[1] == 0:
        raise ValueError(
            f"Scores of shape {tuple(s.shape)} are no (neurons, concepts) matrix with at least "
            "one concept."
        )
    each = torch.as_tensor(alpha).double()
    if ((each <= 0) | (each > 1)).any() or (each.ndim == 0 and each.isnan()):
        raise ValueError(
            f"alpha = {alpha} lies outside (0, 1]; the paper takes .95 for major and .90 for "
            "minor concepts."
        )
    if each.ndim and each.shape != s.shape[:1]:
        raise ValueError(f"{tuple(each.shape)} alphas do not fit {len(s)} neurons; give each one.")
    best = s.amax(1)
    damaged = best.isnan()  # one NaN makes the maximum NaN; the other concepts still count
    if damaged.any():
        best[damaged] = s[damaged].nan_to_num(nan=-torch.inf, posinf=torch.inf).amax(1)
    names = (best > 0) & best.isfinite()
    return torch.where(names, alpha * best, torch.nan)


def _ranked(s: Tensor, threshold: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return for each neuron the indices and scores at or above its threshold, best first.

    Only what is kept is ever sorted, and a stable sort leaves equals in the order of their index.
    """
    row, column = (s >= threshold.unsqueeze(1)).nonzero(as_tuple=True)
    counts = row.bincount(minlength=len(s)).tolist()
    ranked = []
    for index, value in zip(column.split(counts), s[row, column].split(counts), strict=True):
        order = value.argsort(descending=True, stable=True)
        ranked.append((index[order], value[order]))
    return ranked


def _check_shapes(v: Tensor, t: Tensor, t0: Tensor | None) -> None:
    """Refuse features that are not of one space."""
    if v.ndim not in (2, 3) or t.ndim != 2 or v.shape[-1] != t.shape[1] or len(t) == 0:
        raise ValueError(
            f"Exemplar features {tuple(v.shape)} and concept features {tuple(t.shape)} do not fit: "
            "expected (N, K, D) or (N, D) and (M, D) from one encoder, with M at least 1."
        )
    if v.ndim == 3 and v.shape[1] == 0:
        raise ValueError("There are no exemplars (K = 0); collect at least one for each neuron.")
    if t0 is not None and t0.shape != t.shape[1:]:
        raise ValueError(
            f"The bare template's feature has shape {tuple(t0.shape)}; expected "
            f"{tuple(t.shape[1:])}."
        )
