"""Selections of concepts by size, by one threshold and by alpha; agreement against scipy."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from wwwlib import concepts
from wwwlib.studies import choices


def unit(*shape, seed=0, dtype=torch.float64):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return F.normalize(x, dim=-1)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.9, 0.95])
def test_the_template_is_a_stricter_alpha(alpha):
    """The corrected score at alpha selects as plain cosine at 1-(1-alpha)(1-c/max)."""
    v, t, t0 = unit(50, 3, 16), unit(300, 16, seed=1), unit(16, seed=2)
    plain = concepts.score(v, t)
    c, best = (v @ t0).mean(1), plain.amax(1)
    equivalent = choices.equivalent_alpha(alpha, c, best)
    corrected = concepts.select(concepts.score(v, t, t0), alpha)
    same = concepts.select(plain, equivalent)
    compared = sizes = 0
    for i, index in enumerate(corrected):
        if not equivalent[i].isnan():
            assert torch.equal(index, same[i])
            compared, sizes = compared + 1, sizes + len(index)
    assert compared > 25
    assert torch.equal(same[0], concepts.select(plain[:1], equivalent[0].item())[0])
    assert sizes > compared  # else every set were the best word alone, and nothing compared


def test_where_plain_cosine_has_no_alpha_there_is_none():
    """Breaks if 1 - (1 - alpha)(1 - c / max) leaves (0, 1] and stops the whole selection."""
    template = torch.tensor([0.2, 0.5, -3.0, -0.4, 0.0]).double()
    best = torch.tensor([0.4, 0.5, 0.1, -0.1, 0.3]).double()
    found = choices.equivalent_alpha(0.9, template, best)
    assert found.isnan().tolist() == [False, True, True, True, False]
    assert found[[0, 4]].tolist() == pytest.approx([0.95, 0.9])
    chosen = concepts.select(torch.stack([best, best - 1], 1), found)
    assert [index.tolist() for index in chosen] == [[0], [], [], [], [0]]


def test_cut_keeps_as_many_of_the_best_as_asked():
    """Breaks if ties are cut in another order than `select` ranks them."""
    s = torch.tensor([[0.1, 0.3, 0.2, 0.3], [5.0, 5.0, 5.0, 5.0], [0.0, -1.0, 2.0, 1.0]])
    kept = [index.tolist() for index in choices.select_top(s, [3, 2, 0])]
    assert kept == [[1, 3, 2], [0, 1], []]
    many = unit(20, 300)
    chosen = concepts.select(many, 0.8)
    again = choices.select_top(many, [len(index) for index in chosen])
    assert all(torch.equal(a, b) for a, b in zip(again, chosen, strict=True))
    for sizes in ([1, 2], [1, 2, 5], [1, 2, -1]):
        with pytest.raises(ValueError, match="do not match scores of shape"):
            choices.select_top(s, sizes)


def test_one_threshold_for_all_keeps_the_best_of_all_neurons():
    """Breaks if every neuron keeps its share, as it does with a threshold of its own."""
    s = unit(6, 40)
    for total in (0, 1, 25):
        pairs = [(x, i, j) for i, row in enumerate(s.tolist()) for j, x in enumerate(row)]
        best = sorted(pairs, reverse=True)[:total]
        oracle = [[j for _, i, j in best if i == neuron] for neuron in range(6)]
        assert [index.tolist() for index in choices.select_overall(s, total)] == oracle
    assert sum(map(len, choices.select_overall(torch.ones(2, 3), 1))) == 6, "equals stay together"


def test_agreement_is_spearmans_with_ties_and_the_relative_error():
    w = torch.tensor([[0, 0, 3, 1, 1, 5.0], [1, 2, 3, 4, 5, 6], [2, 2, 2, 2, 2, 2]])
    reference = torch.tensor([[0, 1, 2, 0, 1, 9.0], [6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6]])
    found = choices.agreement(w, reference)
    for b in range(2):
        assert found.rank[b].item() == pytest.approx(spearmanr(w[b], reference[b]).statistic)
        gap = sum(abs(p - q) for p, q in zip(w[b].tolist(), reference[b].tolist(), strict=True))
        assert found.error[b].item() == pytest.approx(gap / reference[b].sum().item())
    assert found.rank[2].isnan(), "a constant has no ranks"
    assert choices.agreement(w, torch.zeros_like(w)).error.isnan().all()
    with pytest.raises(ValueError, match="the same shape"):
        choices.agreement(torch.zeros(2, 3), torch.zeros(2, 4))
