"""Uncertainties, and whether they find errors, against slow literal versions."""

from itertools import pairwise, permutations, product

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import roc_auc_score

from wwwlib import images
from wwwlib.studies import reliability, survey, verdicts

RATES = torch.linspace(0, 1, 11)


def orders(u):
    """Yield every order of the images, most uncertain first, in which ties may stand."""
    n = len(u)
    for order in permutations(range(n)):
        if all(u[a] >= u[b] for a, b in pairwise(order)):
            yield order


def literal_hits(u, wrong, count):
    every = [sum(wrong[i] for i in order[:count]) for order in orders(u)]
    return sum(every) / len(every)


def literal_auroc(u, wrong):
    pairs = [(a, b) for a, b in product(range(len(u)), repeat=2) if wrong[a] and not wrong[b]]
    return sum((u[a] > u[b]) + (u[a] == u[b]) / 2 for a, b in pairs) / len(pairs)


def literal_aurc(u, wrong):
    """Keep 1, 2, ... images from the least uncertain on, over all orders of ties."""
    n, areas = len(u), []
    for order in orders(u):
        kept = [wrong[i] for i in reversed(order)]
        areas.append(sum(sum(kept[:k]) / k for k in range(1, n + 1)) / n)
    return sum(areas) / len(areas)


def draw(seed, n, values=None):
    """Return uncertainties, with ties if there are few `values`, and errors of both kinds."""
    rng = np.random.default_rng(seed)
    u = rng.random(n) if values is None else rng.integers(0, values, n).astype(float)
    wrong = rng.random(n) < 0.4
    wrong[:2] = True, False
    return torch.tensor(u), torch.tensor(wrong)


# Rejection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("values", [None, 1, 2, 3])
def test_hits_are_a_literal_count_averaged_over_the_orders_of_ties(seed, values):
    """Breaks if ties are cut by position, or a rate rounds to another number of images."""
    u, wrong = draw(seed, 7, values)
    curve = reliability.rejection(u, wrong, RATES, samples=2)
    for rate, rejected, hits in zip(
        RATES.double().tolist(),
        curve.points.rejected.tolist(),
        curve.points.hits.tolist(),
        strict=True,
    ):
        assert rejected == int(rate * 7 + 0.5)
        assert hits == pytest.approx(literal_hits(u.tolist(), wrong.tolist(), rejected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rates_reject_whole_numbers_of_images_as_counted_by_hand(dtype):
    """Breaks if .58 of 25 images, which floats put below a half, is rounded down."""
    rates = torch.linspace(0, 1, 51, dtype=dtype)
    for n in range(2, 101):
        curve = reliability.rejection(torch.arange(n), torch.zeros(n), rates, samples=1)
        assert curve.points.rejected.tolist() == [(2 * i * n + 50) // 100 for i in range(51)], n


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("values", [None, 1, 3])
def test_auroc_and_area_agree_with_literal_sums(seed, values):
    u, wrong = draw(seed, 7, values)
    curve = reliability.rejection(u, wrong, RATES, samples=2)
    assert curve.auroc == pytest.approx(literal_auroc(u.tolist(), wrong.tolist()))
    risk = reliability.risk_coverage(u, wrong)
    assert risk.area == pytest.approx(literal_aurc(u.tolist(), wrong.tolist()))
    assert risk.area == pytest.approx(risk.points.risk.mean())
    assert risk.points.risk.iloc[-1] == pytest.approx(wrong.double().mean().item())
    assert risk.points.coverage.tolist() == pytest.approx([(i + 1) / 7 for i in range(7)])


@pytest.mark.parametrize("values", [None, 4, 40])
def test_auroc_is_scikit_learns(values):
    u, wrong = draw(1, 500, values)
    found = reliability.auroc(u, wrong)
    assert found == pytest.approx(roc_auc_score(wrong.numpy(), u.numpy()), abs=1e-12)


def test_oracle_and_random_lines_are_the_best_and_the_blind_uncertainty():
    u, wrong = draw(2, 200)
    best = reliability.rejection(wrong.double(), wrong, RATES, samples=2)
    blind = reliability.rejection(torch.zeros(200), wrong, RATES, samples=2)
    assert best.points.hits.tolist() == best.points.oracle.tolist() and best.auroc == 1
    assert (
        blind.points.hits.tolist() == pytest.approx(blind.points.random.tolist())
        and blind.auroc == 0.5
    )
    curve = reliability.rejection(u, wrong, RATES, samples=2)
    assert (curve.points.hits <= curve.points.oracle + 1e-9).all()
    assert curve.errors == int(wrong.sum()) and curve.images == 200


def test_uncertainty_matters_by_its_order_alone():
    """Breaks if a value, not its rank, enters; infinities are the ends of the order."""
    u, wrong = draw(3, 60)
    plain = reliability.rejection(u, wrong, RATES, samples=2)
    moved = u.exp() * 1e6
    moved[u.argmax()], moved[u.argmin()] = torch.inf, -torch.inf
    other = reliability.rejection(moved, wrong, RATES, samples=2)
    assert plain.points.hits.tolist() == other.points.hits.tolist() and plain.auroc == other.auroc


def drawn(n, samples, seed):
    """Return the images of each bootstrap sample, drawn by scipy one sample at a time."""
    found = []

    def keep(images):
        found.append(torch.tensor(images))
        return 0.0

    bootstrap((np.arange(n),), keep, n_resamples=samples, vectorized=False, method="percentile",
              rng=np.random.default_rng(seed))  # fmt: skip
    return found[-samples:]


ENDS = torch.tensor([0.025, 0.975], dtype=torch.float64)


def test_bands_are_those_of_a_literal_bootstrap():
    """Breaks if a resampled image counts once only, or bands do not belong to the same draws."""
    u, wrong = draw(4, 30, 6)
    curve = reliability.rejection(u, wrong, RATES, samples=50, seed=7)
    samples = drawn(30, 50, 7)
    again = [reliability.rejection(u[i], wrong[i], RATES, samples=1) for i in samples]
    values = torch.tensor([one.auroc for one in again]).double()
    assert curve.auroc_interval == pytest.approx(values.nanquantile(ENDS).tolist())
    band = np.quantile([one.points.hits / one.errors for one in again], ENDS, axis=0)
    np.testing.assert_allclose(curve.points[["low", "high"]].T, band)
    risk = reliability.risk_coverage(u, wrong, samples=50, seed=7)
    many = [reliability.risk_coverage(u[i], wrong[i], samples=1) for i in samples]
    band = np.quantile([one.points.risk for one in many], ENDS, axis=0)
    np.testing.assert_allclose(risk.points[["low", "high"]].T, band)
    areas = torch.tensor([one.area for one in many]).double()
    assert risk.interval == pytest.approx(areas.quantile(ENDS).tolist())


def test_shares_of_the_errors_end_at_all_of_them_in_every_sample():
    """Breaks if a sample's hits are counted against the errors of another."""
    u, wrong = draw(4, 40)
    curve = reliability.rejection(u, wrong, RATES, samples=50)
    assert curve.points.recall.tolist() == pytest.approx(
        (curve.points.hits / curve.errors).tolist()
    )
    assert curve.points[["low", "recall", "high"]].iloc[-1].tolist() == [1, 1, 1]


def test_differences_are_paired():
    """Breaks if both do not use the same samples: against itself the difference is zero."""
    u, wrong = draw(5, 100, 10)
    same = reliability.compare(u, u * 2, wrong, samples=50)
    assert same.difference == 0 and same.interval == (0, 0)
    better = reliability.compare(wrong + torch.rand(100), u, wrong, samples=200)
    assert better.interval[0] > 0
    assert better.difference == pytest.approx(1 - reliability.auroc(u, wrong))


@pytest.mark.parametrize("measure", ["auroc", "aurc"])
def test_a_paired_interval_is_that_of_a_literal_bootstrap(measure):
    """Breaks if another measure is resampled than the one whose difference is given."""
    u, wrong = draw(8, 30, 6)
    other, _ = draw(9, 30, 6)
    found = reliability.compare(u, other, wrong, samples=40, seed=3, measure=measure)
    every = [torch.arange(30), *drawn(30, 40, 3)]
    value = {
        "auroc": reliability.auroc,
        "aurc": lambda u, wrong: reliability.risk_coverage(u, wrong, samples=1).area,
    }[measure]
    gaps = torch.tensor([value(u[i], wrong[i]) - value(other[i], wrong[i]) for i in every]).double()
    assert found.difference == pytest.approx(gaps[0].item())
    assert found.interval == pytest.approx(gaps[1:].quantile(ENDS).tolist())


def test_a_measure_that_is_none_is_refused():
    with pytest.raises(ValueError, match="measure is 'accuracy'; use one of auroc, aurc"):
        reliability.compare(torch.rand(9), torch.rand(9), torch.arange(9) < 4, measure="accuracy")


def test_without_errors_there_is_no_auroc_but_still_a_curve():
    curve = reliability.rejection(torch.rand(20), torch.zeros(20), RATES, samples=3)
    assert np.isnan(curve.auroc) and curve.points.hits.tolist() == [0] * 11


@pytest.mark.parametrize(
    ("u", "wrong", "rates", "words"),
    [
        (torch.rand(3), torch.zeros(4), [0.1], "same"),
        (torch.tensor([]), torch.tensor([]), [0.1], "at least 2"),
        (torch.tensor([1.0, torch.nan]), torch.tensor([0, 1]), [0.1], "nan for 1 of 2"),
        (torch.rand(2), torch.tensor([0, 2]), [0.1], "values other than 0 and 1"),
        (torch.rand(2), torch.tensor([0, 1]), [1.5], "not all in"),
        (torch.rand(2), torch.tensor([0, 1]), [torch.nan], "not all in"),
    ],
)
def test_what_cannot_be_sorted_is_refused_in_a_sentence(u, wrong, rates, words):
    with pytest.raises(ValueError, match=words):
        reliability.rejection(u, wrong, rates)


# Uncertainties --------------------------------------------------------------------------------


def test_softmax_uncertainty_are_their_formulas():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    found = reliability.softmax_uncertainty(logits)
    for i, row in enumerate(logits.tolist()):
        total = sum(np.exp(row))
        p = sorted((np.exp(one) / total for one in row), reverse=True)
        assert found["max softmax"][i].item() == pytest.approx(1 - p[0])
        assert found["entropy"][i].item() == pytest.approx(-sum(one * np.log(one) for one in p))
        assert found["margin"][i].item() == pytest.approx(1 - (p[0] - p[1]))
        assert found["energy"][i].item() == pytest.approx(-np.log(total))


def test_sure_predictions_keep_their_order():
    """Breaks if 1 - p is taken literally: float64 rounds both probabilities to 1, and they tie."""
    u = reliability.softmax_uncertainty(torch.tensor([[90.0, 0.0], [95.0, 0.0]]))
    for name in ("max softmax", "margin"):
        assert u[name][0] > u[name][1] > 0
    with pytest.raises(ValueError, match="at least two classes"):
        reliability.softmax_uncertainty(torch.zeros(3, 1))


def test_uncertainties_a_survey_are_one_less_its_readings_and_those_of_its_logits():
    """Breaks if another layer's readings are taken, or an unknown class counts as agreement."""
    noise = torch.Generator().manual_seed(1)
    one, two = (torch.rand(6, 4, generator=noise).double() for _ in range(2))
    one[0, 2] = torch.nan
    logits = torch.randn(4, 3, generator=noise)
    read = {
        ("late", 5): dict(zip(survey.READINGS, one, strict=True)),
        ("late", 3): dict(zip(survey.READINGS, two, strict=True)),
    }
    found = reliability.uncertainties(survey.Surveyed(logits, logits.argmax(1), read), "late", 5)
    assert next(iter(found)) == "1 - r"
    assert found["1 - r"].tolist() == [1 - one[0, 0], 1 - one[0, 1], 1, 1 - one[0, 3]]
    assert found["1 - carried"].tolist() == (1 - one[5]).tolist()
    for name, u in reliability.softmax_uncertainty(logits).items():
        assert torch.equal(found[name], u)


# Combination ----------------------------------------------------------------------------------


def test_a_second_opinion_gains_and_an_echo_does_not():
    rng = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 800, generator=rng)
    wrong = one + two + torch.randn(800, generator=rng) > 1
    helps = reliability.gain(one, two, wrong, samples=300)
    assert helps.interval[0] > 0 and helps.difference > 0
    echo = reliability.gain(one, one, wrong, samples=300)
    assert echo.difference == pytest.approx(0, abs=1e-12)


def test_what_is_learnt_by_heart_is_no_gain():
    """Breaks if a model is judged on the half that it was fitted on.

    `second` knows every error of the fitted half and nothing about the other.
    """
    rng = torch.Generator().manual_seed(0)
    wrong = torch.rand(400, generator=rng) < 0.3
    u, noise = wrong + 2 * torch.randn(400, generator=rng), torch.randn(400, generator=rng)
    fitted = torch.zeros(400, dtype=torch.bool)
    fitted[images.halves(wrong.tolist(), 5)[0]] = True
    second = torch.where(fitted, wrong.double(), noise)
    found = reliability.gain(u, second, wrong, seed=5, samples=300)
    assert found.difference < 0


def test_a_stricter_level_widens_the_interval_of_a_gain():
    rng = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 400, generator=rng)
    wrong = one + two + torch.randn(400, generator=rng) > 1
    usual, strict = (
        reliability.gain(one, two, wrong, samples=300, level=p).interval for p in (0.95, 0.993)
    )
    assert strict[0] < usual[0] < usual[1] < strict[1]


def test_too_few_errors_give_no_gain_and_infinite_uncertainty_are_refused():
    few = reliability.gain(torch.rand(90), torch.rand(90), torch.arange(90) < 9)
    assert np.isnan(few.difference)
    with pytest.raises(ValueError, match="infinite"):
        reliability.gain(torch.full((9,), torch.inf), torch.rand(9), torch.arange(9) < 4)


# Verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [((0.1, 0.3), "held"), ((-0.3, -0.1), "did not hold"), ((-0.1, 0.3), "undecided"),
     ((0.0, 0.3), "undecided"), ((0.0, 0.0), "did not hold")],
)  # fmt: skip
def test_a_verdict_says_no_more_than_its_interval(interval, outcome):
    found = verdicts.verdict("A beats B", sum(interval) / 2, interval)
    assert found.outcome == outcome and str(found).startswith(f"A beats B: {outcome} (measured ")
    assert f"interval {interval[0]:.3f} to {interval[1]:.3f})." in str(found)


def test_a_handful_of_errors_decides_nothing():
    """Breaks if the bootstrap of one error passes for an interval."""
    wrong = torch.arange(100) == 3
    found = verdicts.judge("it works", reliability.rejection(wrong.double(), wrong, [0.5]))
    assert found.outcome == "undecided" and "1 of 100 are wrong" in str(found)
    assert np.isnan(reliability.compare(torch.rand(100), torch.rand(100), wrong).difference)
    wrong = torch.arange(100) < 9
    curve = reliability.rejection(wrong.double(), wrong, [0.5])
    assert verdicts.judge("it works", curve).outcome == "held"


@pytest.mark.parametrize(("count", "total"), [(0, 24), (24, 24), (1, 1000), (7, 9)])
def test_the_interval_of_a_share_is_wilsons(count, total):
    oracle = binomtest(count, total).proportion_ci(0.95, "wilson")
    found = verdicts.judge_share("a", count, total, 0.5).interval
    assert found == (oracle.low, oracle.high)
    assert found[0] < found[1], "an interval has a width even at 0 and 1"


def test_a_share_is_held_against_what_would_matter():
    """Breaks if one case in a thousand decides that there are more than none, with no interval."""
    one, all_, few, none = (
        verdicts.judge_share("Words differ", *share, bound=0.05)
        for share in ((1, 1000), (30, 30), (1, 9), (0, 0))
    )
    assert str(one) == "Words differ: did not hold (measured 0.001, interval 0.000 to 0.006)."
    assert all_.outcome == "held" and all_.interval[0] < 1
    assert few.outcome == none.outcome == "undecided"
    assert str(none).endswith("(there is nothing to count).")
    with pytest.raises(ValueError):
        verdicts.judge_share("Words differ", 3, 2, bound=0.05)


def test_a_table_of_outcomes_has_reasons_in_place_of_numbers():
    table = verdicts.outcomes(
        [verdicts.verdict("a", 0.25, (0.125, 0.375)), verdicts.verdict("b", why="too few")]
    )
    assert table.index.tolist() == ["held", "undecided"]
    assert table.to_numpy().tolist() == [
        ["a", "0.250", "0.125 to 0.375"], ["b", "too few", "—"]
    ]  # fmt: skip


def test_nothing_measured_decides_nothing_and_says_why():
    found = verdicts.verdict("A beats B", why="one image a class")
    assert str(found) == "A beats B: undecided (one image a class)."


def test_a_chance_of_many_orders_is_what_the_oracle_averages():
    """Guards the oracle itself: three tied images have six orders."""
    assert len(list(orders([1.0, 1.0, 1.0]))) == 6
