"""Sampled Shapley values against every order of entry."""

from itertools import permutations

import pytest
import torch
from torch import nn

from wwwlib import targets
from wwwlib.baselines import shapley
from wwwlib.contributions import ablation, taylor


def wrapped(*layers):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers).double()
    return targets.wrap(model, lambda _: torch.zeros(3, 8, 8), list("abcde"), "test")


def bent():
    """Return a network in which neurons of layer 0 depend on each other."""
    return wrapped(nn.Sigmoid(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))


def linear():
    return wrapped(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


X = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def masked(target, x, zero, c):
    """Return the logit of class c for one image with some neurons of layer 0 at zero."""
    with torch.no_grad():
        a = target.model[0](x[None])
        a[:, list(zero)] = 0
        return target.model[1:](a)[0, c].item()


def literal(target, x, players, c):
    """Average what each player adds over all orders in which the players may be added."""
    orders = list(permutations(players))
    value = dict.fromkeys(players, 0.0)
    for order in orders:
        for place, player in enumerate(order):
            before = masked(target, x, order[place:], c)
            value[player] += (masked(target, x, order[place + 1 :], c) - before) / len(orders)
    return [value[player] for player in players]


def test_sampled_values_approach_those_over_all_orders():
    """Breaks if players are mixed up, if other neurons are set to zero, or rows of images are."""
    target, classes, players = bent(), torch.tensor([3, 1]), [2, 0, 3]
    w = shapley.values(target, X, "0", classes, players, signed=True, samples=400, batch_size=50)
    exact = torch.tensor([literal(target, X[b], players, int(classes[b])) for b in range(2)])
    alone = ablation(target, X, "0", classes, players, signed=True)
    assert (w - exact).abs().max() < 0.15 * (alone - exact).abs().max(), "the orders matter here"


def test_each_order_shares_out_the_whole_logit():
    """One order is enough for the sum: all players add the logit minus that without them."""
    target, classes = bent(), [4, 2]
    w = shapley.values(target, X, "0", torch.tensor(classes), signed=True, samples=1)
    for b, c in enumerate(classes):
        gap = masked(target, X[b], [], c) - masked(target, X[b], range(4), c)
        assert w[b].sum().item() == pytest.approx(gap)
    assert torch.equal(shapley.values(target, X, "0", torch.tensor(classes), samples=1), w.abs())


def test_before_a_linear_head_nothing_is_left_to_chance():
    target = linear()
    w = shapley.values(target, X, "0", 3, signed=True, samples=1, seed=5)
    exact = taylor(target, X, "0", 3, signed=True)
    torch.testing.assert_close(w, exact, rtol=0, atol=1e-6)  # captum's single precision


def test_a_seed_fixes_the_orders_and_leaves_the_global_state():
    target = bent()
    before = torch.get_rng_state()
    one, again, other = (shapley.values(target, X, "0", 1, samples=2, seed=s) for s in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_mistakes_are_sentences():
    target = linear()
    with pytest.raises(ValueError, match="samples is 0"):
        shapley.values(target, X, "0", samples=0)
    with pytest.raises(ValueError, match="some of 0 to 3"):
        shapley.values(target, X, "0", neurons=[4])
