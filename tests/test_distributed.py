"""Passes over images: results do not depend on batches, interruptions, or the processes' number."""

import os
import socket
from fractions import Fraction
from functools import reduce

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wwwlib import targets, world
from wwwlib.activations import capture
from wwwlib.distributed import Options, Pass, class_sums, class_totals, concatenate, run
from wwwlib.distributed.passes import _stretches
from wwwlib.distributed.sums import exact_parts, merge_class_sums
from wwwlib.distributed.workers import ranks
from wwwlib.store import NullStore, Store

COUNT, BATCH, LAYERS = 90, 8, ["layer4", "logits"]


# Options --------------------------------------------------------------------------------------


def test_an_option_that_does_not_exist_is_named():
    with pytest.raises(TypeError, match="There is no option 'batchsize'; use one of batch_size, w"):
        Options(batchsize=3)


def test_no_store_is_a_store_that_keeps_nothing():
    assert isinstance(Options(store=None).store, NullStore)


@pytest.mark.parametrize("name, value", [("batch_size", 0), ("workers", -1), ("actors", -1)])
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least"):
        Options(**{name: value})


def test_ray_needs_a_store_and_pillow(tmp_path):
    with pytest.raises(ValueError, match="needs a store"):
        Options(actors=2)
    with pytest.raises(ValueError, match="decoder='pillow'"):
        Options(actors=2, store=Store(tmp_path), decoder="torchvision")


# Exact sums -----------------------------------------------------------------------------------

usual = st.floats(-500, 500, width=32)


@given(st.lists(usual, min_size=1, max_size=40), st.randoms())
def test_a_sum_of_parts_is_the_same_in_every_order(values, random):
    """Breaks if a part has more digits than a sum of many of them can hold."""
    there = exact_parts(torch.tensor(values)[:, None])
    random.shuffle(values)
    back = exact_parts(torch.tensor(values)[:, None])
    assert torch.equal(reduce(torch.add, there), reduce(torch.add, back))


@given(st.lists(usual, min_size=1, max_size=40))
def test_a_sum_of_parts_is_the_true_sum(values):
    """The oracle adds fractions, which never round."""
    values = torch.tensor(values)
    found = exact_parts(values[:, None]).sum((0, 1)).item()
    truth = sum(Fraction(value) for value in values.tolist())
    assert abs(Fraction(found) - truth) <= len(values) * Fraction(2) ** -50 + abs(truth) / 2**52


def test_plain_sums_depend_on_the_order():
    values = (torch.randn(1000) * torch.logspace(-7, 2, 1000)).double()
    orders = [values[torch.randperm(1000)] for _ in range(20)]
    assert len({reduce(torch.add, order).item() for order in orders}) > 1
    cuts = [reduce(torch.add, exact_parts(order[:, None])) for order in orders]
    assert all(torch.equal(cuts[0], one) for one in cuts)


def test_class_sums_merge_to_those_of_all_images():
    values, classes = torch.randn(50, 3, 2), torch.randint(0, 6, (50,))
    halves = [class_sums(values[part], classes[part]) for part in (slice(20), slice(20, None))]
    sums, count = class_totals(merge_class_sums(*halves), 8)
    whole, counted = class_totals(class_sums(values, classes), 8)
    assert torch.equal(sums, whole) and torch.equal(count, counted)
    for c in range(8):
        members = values[classes == c].double()
        torch.testing.assert_close(sums[c], members.sum(0), rtol=0, atol=1e-13)
        assert count[c] == len(members)


# Passes ---------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 70), st.integers(1, 12))
def test_stretches_cover_every_image_once_and_cut_no_batch(count, batch_size, parts):
    cuts = _stretches(count, batch_size, parts)
    assert len(cuts) == parts
    assert [i for stretch in cuts for i in stretch] == list(range(count))
    assert all(stretch.start % batch_size == 0 for stretch in cuts if len(stretch))


def activations(target, images, layers=LAYERS):
    def step(layers, indices, x):
        with torch.inference_mode(), capture(target, layers) as captured:
            target.model(x)
        return {layer: {"z": captured[layer].z, "index": indices} for layer in layers}

    return Pass(target, images, layers, step, concatenate, "test")


@pytest.fixture
def conv():
    """The world's network, and the sizes of the batches that it has received."""
    target, seen = targets.load("world/conv"), []
    target.model.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    return target, seen


def test_a_pass_returns_its_rows_in_order_and_computes_missing_layers_only(conv, tmp_path):
    (target, seen), images = conv, world.image_set(20, seed=4)
    options = {"batch_size": 8, "store": Store(tmp_path), "progress": False}
    found = run(activations(target, images, ["layer4"]), **options)
    assert found["layer4"]["index"].tolist() == list(range(20)) and seen == [8, 8, 4]
    both = run(activations(target, images), **options)
    assert list(both) == LAYERS and len(seen) == 6
    x = torch.stack([target.preprocess(images.image(i)) for i in range(20)])
    with torch.inference_mode():
        torch.testing.assert_close(both["logits"]["z"], target.model(x))
    run(activations(target, images, ["logits", "layer4"]), **options)
    assert len(seen) == 7


def test_a_string_of_layers_is_refused(conv):
    with pytest.raises(ValueError, match=r"give a list, \['layer4'\]"):
        activations(conv[0], world.image_set(2), "layer4")


# Ranks ----------------------------------------------------------------------------------------


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def work(rank, size, at, store, connection, task):
    """Be one of the processes that torchrun starts."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(at), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    torch.set_num_threads(1)
    try:
        connection.send(task(Store(store)))
    except Exception as error:  # for the test to look at
        connection.send(f"{type(error).__name__}: {error}")


def crew(processes, size, task, stores):
    """Run a task on so many ranks at once and return what it returned on each."""
    at, pipes, running = port(), [], []
    for rank in range(size):
        ours, theirs = processes.Pipe()
        args = (rank, size, at, stores[rank], theirs, task)
        running.append(processes.Process(target=work, args=args))
        running[-1].start()
        pipes.append(ours)
    found = [pipe.recv() for pipe in pipes]
    for process in running:
        process.join()
    return found


def batches_and_values(store):
    target, seen = targets.load("world/conv"), []
    target.model.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    found = run(
        activations(target, world.image_set(COUNT, seed=11)),
        batch_size=BATCH, store=store, progress=False,
    )  # fmt: skip
    return len(seen), {layer: found[layer]["z"].tolist() for layer in found}


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("shared", [True, False])
def test_every_rank_receives_what_one_process_computes(tmp_path, processes, size, shared):
    """Breaks if an image is read twice or never, or in another batch, or by a stale result."""
    _, expected = batches_and_values(None)
    stores = [tmp_path / ("all" if shared else str(rank)) for rank in range(size)]
    found = crew(processes, size, batches_and_values, stores)
    assert sum(calls for calls, _ in found) == 12
    assert all(values == expected for _, values in found)
    left = [p for p in tmp_path.rglob("*.checkpoint/*") if p.suffix != ".lock"]
    assert not left, "checkpoints go once the whole is kept"
    again = crew(processes, size, batches_and_values, stores)
    assert [calls for calls, _ in again] == [0] * size
    assert all(values == expected for _, values in again)


def of_other_images(store):
    other = int(os.environ["RANK"])
    target = targets.load("world/conv")
    return run(activations(target, world.image_set(20 + other)), store=store, progress=False)


def test_ranks_that_make_different_passes_are_refused(tmp_path, processes):
    found = crew(processes, 2, of_other_images, [tmp_path] * 2)
    assert "Rank 1 computes 'images', but rank 0 another pass" in found[1]


def test_a_process_without_torchrun_is_alone(monkeypatch):
    ranks.cache_clear()
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert ranks().size == 1
