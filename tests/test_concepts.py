"""WHAT: scores and selection against literal loops over exemplars and words in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from wwwlib import concepts


def unit(*shape, seed=0, dtype=torch.float64):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return F.normalize(x, dim=-1)


def literal_score(v, t, t0):
    """Eq. 1 as it is printed: for each neuron and word, over exemplars, a difference of cosines."""
    s = []
    for exemplars in v.tolist():
        row = []
        for word in t.tolist():
            total = 0.0
            for image in exemplars:
                total += sum(a * b for a, b in zip(image, word, strict=True))
                total -= sum(a * b for a, b in zip(image, t0.tolist(), strict=True))
            row.append(total / len(exemplars))
        s.append(row)
    return s


def literal_select(row, alpha):
    """Eq. 2: sort by score, then by index; keep what reaches alpha times a positive maximum."""
    finite = [x for x in row if not math.isnan(x)]
    if not finite or max(finite) <= 0 or math.isinf(max(finite)):
        return []
    kept = [j for j, x in enumerate(row) if x >= alpha * max(finite)]
    return sorted(kept, key=lambda j: (-row[j], j))


@pytest.mark.parametrize(("n", "k", "m"), [(6, 5, 30), (6, 1, 30), (6, 5, 1), (1, 1, 1)])
@pytest.mark.parametrize("alpha", [0.5, 0.9, 0.95, 1.0])
def test_score_and_select_equal_the_literal_loops(n, k, m, alpha):
    v, t, t0 = unit(n, k, 7), unit(m, 7, seed=1), unit(7, seed=2)
    oracle = literal_score(v, t, t0)
    s = concepts.score(v, t, t0)
    assert torch.allclose(s, torch.tensor(oracle, dtype=torch.float64), atol=1e-13, rtol=0)
    chosen = [index.tolist() for index in concepts.select(s, alpha)]
    assert chosen == [literal_select(row, alpha) for row in s.tolist()]
    words = [f"word {j}" for j in range(m)]
    table = concepts.discover(v, t, t0, words, alpha)
    assert table.names == [[words[j] for j in row] for row in chosen]
    for i, row in enumerate(chosen):
        assert table.scores[i] == pytest.approx([oracle[i][j] for j in row], abs=1e-13)
        assert table.abstained[i].item() == (not row)
        expected = alpha * max(oracle[i]) if row else 0.0
        assert table.threshold[i].item() == pytest.approx(expected, abs=1e-13)


def test_some_neurons_of_the_oracle_abstain_and_some_do_not():
    """Guards the test above: without both kinds it would not test abstention."""
    s = concepts.score(unit(6, 5, 7), unit(1, 7, seed=1), unit(7, seed=2))
    assert {bool(index.numel()) for index in concepts.select(s)} == {True, False}


def test_a_neuron_nearest_to_the_bare_template_abstains():
    t0 = torch.tensor([1.0, 0.0])
    v = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    t = F.normalize(torch.tensor([[1.0, 0.2], [0.2, 1.0]]), dim=1)
    table = concepts.discover(v, t, t0, ["vague", "sharp"])
    assert table.names == [[], ["sharp"]]
    assert table.abstained.tolist() == [True, False]
    assert table.threshold[0] == 0


def test_rows_of_zeros_abstain():
    """Dead neurons get zero rows from the exemplars; a zero maximum is not positive."""
    table = concepts.discover(torch.zeros(2, 3, 4), unit(5, 4).float(), None, list("abcde"))
    assert table.names == [[], []]


def test_mean_over_exemplars_may_be_taken_before():
    v, t, t0 = unit(4, 6, 8), unit(9, 8, seed=1), unit(8, seed=2)
    assert torch.allclose(concepts.score(v.mean(1), t, t0), concepts.score(v, t, t0), atol=1e-15)


def test_ranking_is_the_same_with_and_without_the_template():
    v, t, t0 = unit(20, 3, 16), unit(200, 16, seed=1), unit(16, seed=2)
    with_template = concepts.score(v, t, t0).argsort(dim=1, descending=True)
    assert torch.equal(with_template, concepts.score(v, t).argsort(dim=1, descending=True))


def test_subtracting_the_template_from_the_words_changes_the_ranking():
    v, t, t0 = unit(200, 5, 16), unit(50, 16, seed=1), unit(16, seed=2)
    turned = concepts.score(v, F.normalize(t - t0, dim=1))
    assert (turned.argmax(1) != concepts.score(v, t, t0).argmax(1)).any()


def test_each_neuron_may_have_its_own_alpha():
    s, alpha = unit(6, 40).abs(), torch.tensor([0.2, 1.0, 0.5, 0.9, math.nan, 0.7])
    chosen = [index.tolist() for index in concepts.select(s, alpha)]
    for row, a, index in zip(s.tolist(), alpha.tolist(), chosen, strict=True):
        assert index == ([] if math.isnan(a) else literal_select(row, a))
    with pytest.raises(ValueError, match=r"\(5,\) alphas do not match 6 neurons"):
        concepts.select(s, alpha[:5])
    with pytest.raises(ValueError, match="lies outside"):
        concepts.select(s, alpha + 0.5)


def test_ties_go_to_the_lower_index():
    """An unstable sort, or topk, breaks ties as it likes."""
    s = torch.ones(3, 1000)
    s[1, ::7] = 2.0
    s[2] = torch.arange(1000) % 3 + 100.0
    chosen = concepts.select(s, alpha=0.95)
    assert chosen[0].tolist() == list(range(1000))
    assert chosen[1].tolist() == list(range(0, 1000, 7))
    assert chosen[2].tolist() == [j for r in (2, 1, 0) for j in range(r, 1000, 3)]


def test_alpha_one_keeps_the_best_and_its_ties():
    s = torch.tensor([[0.1, 0.3, 0.2], [0.3, 0.1, 0.3]])
    assert [index.tolist() for index in concepts.select(s, 1)] == [[1], [0, 2]]


def test_nan_is_never_selected_and_an_infinite_best_abstains():
    nan, inf = math.nan, math.inf
    s = torch.tensor(
        [[nan, nan, nan], [nan, 0.5, 0.2], [inf, 0.5, nan], [-inf, 0.5, 0.5], [nan, -1.0, -inf]]
    )
    chosen = [index.tolist() for index in concepts.select(s)]
    assert chosen == [[], [1], [], [1, 2], []]
    assert chosen == [literal_select(row, 0.95) for row in s.tolist()]


def test_a_nan_neuron_leaves_the_others_alone():
    v, t, t0 = unit(4, 3, 8), unit(20, 8, seed=1), unit(8, seed=2)
    words = [str(j) for j in range(20)]
    whole = concepts.discover(v, t, t0, words)
    v[1, 2, 3] = math.nan
    damaged = concepts.discover(v, t, t0, words)
    assert damaged.names[1] == []
    assert damaged.abstained[1]
    assert [damaged.names[i] for i in (0, 2, 3)] == [whole.names[i] for i in (0, 2, 3)]


@pytest.mark.parametrize("block", [1, 37, 100, 10**9])
def test_blocks_change_nothing(block, monkeypatch):
    monkeypatch.setattr(concepts, "BLOCK", block)
    v, t, t0 = unit(13, 3, 8), unit(25, 8, seed=1), unit(8, seed=2)
    words = [str(j) for j in range(25)]
    table = concepts.discover(v, t, t0, words, 0.5)
    whole = [index.tolist() for index in concepts.select(concepts.score(v, t, t0), 0.5)]
    assert table.names == [[words[j] for j in index] for index in whole]
    assert len(table) == 13


def test_discover_never_holds_more_scores_than_the_block(monkeypatch):
    sizes = []
    score = concepts.score

    def counted(*args):
        sizes.append(score(*args).numel())
        return score(*args)

    monkeypatch.setattr(concepts, "score", counted)
    monkeypatch.setattr(concepts, "BLOCK", 20)
    concepts.discover(unit(10, 2, 4), unit(6, 4, seed=1), None, list("abcdef"))
    assert sizes == [18, 18, 18, 6]


def test_no_neurons_give_an_empty_table():
    table = concepts.discover(torch.zeros(0, 3, 4), unit(5, 4).float(), None, list("abcde"))
    assert len(table) == 0
    assert table.threshold.shape == table.abstained.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_that_of_the_inputs(dtype):
    s = concepts.score(unit(2, 3, 4, dtype=dtype), unit(5, 4, dtype=dtype), unit(4, dtype=dtype))
    assert s.dtype == dtype


def test_inputs_stay_as_they_were():
    """The template term is subtracted in place; it must never reach the features themselves."""
    v, t, t0 = unit(4, 8), torch.eye(8, dtype=torch.float64), unit(8, seed=2)
    before = v.clone(), t.clone(), t0.clone()
    concepts.discover(v, t, t0, list("abcdefgh"))
    assert all(torch.equal(a, b) for a, b in zip((v, t, t0), before, strict=True))


@pytest.mark.parametrize("alpha", [0, -0.5, 1.01, math.nan])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha = .* lies outside \(0, 1\]"):
        concepts.select(torch.ones(2, 3), alpha)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: concepts.score(torch.ones(2, 3, 4), torch.ones(5, 6)), "do not match"),
        (lambda: concepts.score(torch.ones(2, 0, 4), torch.ones(5, 4)), "no exemplars"),
        (lambda: concepts.score(torch.ones(2, 4), torch.ones(0, 4)), "M >= 1"),
        (
            lambda: concepts.score(torch.ones(2, 4), torch.ones(5, 4), torch.ones(1, 4)),
            r"t0 has the shape \(1, 4\); expected \(4,\)\.",
        ),
        (
            lambda: concepts.discover(torch.ones(2, 4), torch.ones(5, 4), None, ["a"]),
            "1 words for 5",
        ),
        (
            lambda: concepts.discover(torch.ones(2, 4), torch.ones(2, 4), None, ["a"] * 3),
            "3 words for 2",
        ),
        (lambda: concepts.score(torch.ones(4), torch.ones(5, 4)), "do not match"),
        (lambda: concepts.score(torch.ones(2, 4), torch.ones(1, 4, 4)), "do not match"),
        (lambda: concepts.select(torch.ones(3)), "matrix"),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


# Stability ------------------------------------------------------------------------------------


def test_stability_is_that_of_literally_drawn_probe_sets():
    """Breaks if the shortcut over the best images differs from ranking each drawn set anew."""
    n, k, rounds = 40, 4, 12
    features, t, t0 = unit(n, 6), unit(9, 6, seed=1), unit(6, seed=2)
    z = torch.rand(n, 5, generator=torch.Generator().manual_seed(3))
    index = z.argsort(dim=0, descending=True, stable=True).T[:, : 3 * k + 20]
    found = concepts.stability(features[index], index, n, t, t0, k, rounds, seed=8)
    generator = torch.Generator().manual_seed(8)
    same = torch.zeros(5)
    for _ in range(rounds):
        drawn = torch.randint(n, (n,), generator=generator)
        for i in range(5):
            best = drawn[z[drawn, i].argsort(descending=True)[:k]]
            s = concepts.score(features[best][None], t, t0)[0]
            same[i] += (int(s.argmax()) if s.max() > 0 else -1) == found.top[i]
    assert found.share.tolist() == pytest.approx((same / rounds).tolist())
    whole = concepts.score(features[index[:, :k]], t, t0)
    assert found.top.tolist() == torch.where(whole.amax(1) > 0, whole.argmax(1), -1).tolist()
    assert found.kept == pytest.approx((same == rounds).float().mean().item())


def test_stability_needs_enough_of_the_best_images():
    """Breaks if exemplars are filled up, without an error, from fewer than k images."""
    v, index = unit(2, 5, 6, seed=0), torch.arange(5).expand(2, 5)
    with pytest.raises(ValueError, match="give more of them, such as 35"):
        concepts.stability(v, index, 100, unit(3, 6, seed=1), None, 5)


@pytest.mark.parametrize("images", [30, 300])
def test_a_neuron_without_exemplars_stably_abstains(images):
    """Breaks if a constant neuron is taken for one with too few of its best images."""
    found = concepts.stability(
        torch.zeros(1, 30, 6).double(), torch.full((1, 30), -1), images, unit(3, 6), None, 2
    )
    assert found.top.tolist() == [-1] and found.share.tolist() == [1]


def test_stability_looks_features_up_where_rows_are_given():
    """Breaks if the shared table of distinct images gives another answer than a copy a neuron."""
    features, t = unit(30, 6, seed=0), unit(9, 6, seed=1)
    index = torch.stack([torch.randperm(30) for _ in range(4)])
    copied = concepts.stability(features[index], index, 30, t, None, 4)
    table = torch.cat([torch.zeros(1, 6).double(), features])  # row 0 for a missing image
    index[0, 2] = -1
    gap = features[index.clamp(min=0)]
    gap[0, 2] = 0
    missing = concepts.stability(gap, index, 30, t, None, 4)
    shared = concepts.stability(table, index, 30, t, None, 4, rows=index + 1)
    assert torch.equal(shared.share, missing.share) and torch.equal(shared.top, missing.top)
    assert torch.equal(shared.share[1:], copied.share[1:])


def test_stability_needs_a_round():
    with pytest.raises(ValueError, match="rounds is 0"):
        concepts.stability(unit(2, 5, 6), torch.zeros(2, 5).long(), 5, unit(3, 6), None, 2, 0)


def test_kept_are_the_neurons_with_one_top_concept_throughout():
    """Of four neurons two kept theirs on every probe set; rounds are twenty by default."""
    found = concepts.Stability(torch.zeros(4).long(), torch.tensor([1.0, 0.95, 1.0, 0.5]))
    assert found.kept == 0.5
    v, index = unit(9, 30, 6), torch.arange(30).expand(9, 30)
    share = concepts.stability(v, index, 30, unit(3, 6, seed=1), None, 2).share
    assert torch.allclose((share * 20).round(), share * 20) and len(share.unique()) > 3


@pytest.mark.parametrize("k", [1, 5, 40])
def test_drawn_sets_do_not_reach_further_than_said(k):
    """A thousand drawn sets of a thousand images: K exemplars lie within `reach`."""
    generator = torch.Generator().manual_seed(k)
    for _ in range(1000):
        count = torch.randint(1000, (1000,), generator=generator).bincount(minlength=1000)
        assert count[: concepts.bootstrap_depth(k, 1000)].sum() >= k
    assert concepts.bootstrap_depth(k, 30) == min(30, 3 * k + 20)
    assert concepts.bootstrap_depth(k, 1000) == 3 * k + 20


@pytest.mark.parametrize(
    "rank, ordinal",
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (10, "10th"), (11, "11th"), (13, "13th"),
     (21, "21st"), (30, "30th"), (101, "101st"), (111, "111th"), (112, "112th"), (123, "123rd")],
)  # fmt: skip
def test_ranks_are_ordinals(rank, ordinal):
    half, ones = torch.tensor([0.5]), torch.ones(1)
    place = torch.tensor([rank])
    tests = concepts.NameTests(half, half, place, half, ones, 0.5, ("a",), 200, 9)
    assert tests.words(0) == f"AUROC .50, {ordinal} of 200"


def test_the_test_of_a_name_is_told_in_words():
    nan = torch.nan
    tests = concepts.NameTests(
        auroc=torch.tensor([0.976, 0.5, 1.0, nan]), pearson=torch.zeros(4),
        rank=torch.tensor([1, 22, 12, 0]), p=torch.tensor([0.01, 0.04, concepts.LEVEL, nan]),
        best_auroc=torch.ones(4), shuffled=0.5, best=("a",) * 4, concepts=103, images=9,
    )  # fmt: skip
    names, scores = [["a"], ["b"], ["c"], ["d"]], [[1.0]] * 4
    table = concepts.ConceptTable(names, scores, torch.ones(4), torch.zeros(4).bool(), tests)
    words = ["AUROC .98, 1st of 103", "AUROC .50, 22nd of 103", "AUROC 1.00, 12th of 103"]
    assert [table.test_words(i) for i in range(4)] == [*words, "untested"]
    assert [table.supported(i) for i in range(4)] == [True, True, False, None]
    bare = concepts.ConceptTable(names, scores, torch.ones(4), torch.zeros(4).bool())
    assert bare.test_words(0) == "untested" and bare.supported(0) is None
