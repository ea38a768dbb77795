"""Shards: whoever answers them, in whatever order, the merged answer is equal to the last bit."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from fractions import Fraction
from functools import reduce
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wwwlib import language, targets, world
from wwwlib.atlas.classes import by_gradient
from wwwlib.exemplars import collect
from wwwlib.exemplars.__main__ import main
from wwwlib.exemplars.exact import parts, whole
from wwwlib.exemplars.running import Running
from wwwlib.exemplars.shards import compact, cut, shard_size, share, spread
from wwwlib.store import Store, tensor_digest

CLASSES, NEURONS, K = 3, 4, 5


def digest(running):
    return tensor_digest({f.name: getattr(running, f.name) for f in fields(Running)})


def same(one, other):
    """Whether two records of exemplars are equal to the last bit."""
    return all(
        torch.equal(getattr(one[layer], f.name), getattr(other[layer], f.name))
        for layer in one
        for f in fields(one[layer])
        if f.name != "images"
    )


# Exact sums -----------------------------------------------------------------------------------

usual = st.floats(-500, 500, width=32)


@given(st.lists(usual, min_size=1, max_size=40), st.randoms())
def test_a_sum_of_parts_is_the_same_in_every_order(values, random):
    """Breaks if a part has more digits than a sum of many of them can hold."""
    there = parts(torch.tensor(values)[:, None])
    random.shuffle(values)
    back = parts(torch.tensor(values)[:, None])
    pairs = reduce(torch.add, there), reduce(torch.add, back)
    assert torch.equal(*pairs)


@given(st.lists(usual, min_size=1, max_size=40))
def test_a_sum_of_parts_is_the_true_sum(values):
    """The oracle adds fractions, which never round."""
    values = torch.tensor(values)
    found = whole(parts(values[:, None]).sum(0, keepdim=True)).item()
    truth = sum(Fraction(value) for value in values.tolist())
    assert abs(Fraction(found) - truth) <= len(values) * Fraction(2) ** -50 + abs(truth) / 2**52


def test_plain_sums_would_not_do():
    """Why all this: the very same numbers, added in float64 in another order, differ."""
    values = (torch.randn(1000) * torch.logspace(-7, 2, 1000)).double()
    orders = [values[torch.randperm(1000)] for _ in range(20)]
    assert len({reduce(torch.add, order).item() for order in orders}) > 1
    cuts = [reduce(torch.add, parts(order[:, None])) for order in orders]
    assert all(torch.equal(cuts[0], one) for one in cuts)


# Merging --------------------------------------------------------------------------------------


def seen(z, members, indices):
    """Return what one worker remembers of some images."""
    running = Running.empty(NEURONS, K, CLASSES, "cpu")
    return running.update(indices, z[indices], members[indices]) if len(indices) else running


@st.composite
def probes(draw):
    """Draw activations full of ties, some not finite, and a cut into shards in any order."""
    count = draw(st.integers(1, 30))
    some = st.sampled_from([0.0, -0.0, 1.0, 0.1, 1e-4, -3.5, 250.3, float("nan"), float("inf")])
    row = st.lists(some, min_size=NEURONS, max_size=NEURONS)
    z = torch.tensor(draw(st.lists(row, min_size=count, max_size=count)))
    members = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    owner = torch.tensor(draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)))
    pieces = [torch.arange(count)[owner == worker] for worker in range(5)]
    return z, members, draw(st.permutations(pieces))


@given(probes())
@settings(deadline=None)
def test_any_split_merged_in_any_order_is_the_whole(probe):
    """Breaks if ties are kept by arrival instead of by index, or a sum by order of addition."""
    z, members, pieces = probe
    merged = reduce(Running.merge, [seen(z, members, piece) for piece in pieces])
    assert digest(merged) == digest(seen(z, members, torch.arange(len(z))))


@given(probes())
@settings(deadline=None)
def test_merging_is_commutative_and_associative(probe):
    z, members, pieces = probe
    a, b, c = (seen(z, members, piece) for piece in pieces[:3])
    assert digest(a.merge(b)) == digest(b.merge(a))
    assert digest(a.merge(b).merge(c)) == digest(a.merge(b.merge(c)))


@given(probes())
@settings(deadline=None)
def test_rows_of_zeros_are_left_out_and_come_back(probe):
    z, members, pieces = probe
    state = seen(z, members, pieces[0]).as_state("hidden")
    back = spread(compact(state))
    assert back.keys() == state.keys()
    assert tensor_digest(back) == tensor_digest(state)


@given(st.integers(1, 500), st.integers(1, 200), st.integers(1, 70))
def test_shards_cover_every_image_once_and_cut_no_batch(count, size, batch_size):
    shards = cut(count, size, batch_size)
    assert [i for s in shards for i in range(s.start, s.stop)] == list(range(count))
    assert all(s.start % batch_size == 0 and s.stop - s.start < size + batch_size for s in shards)


def test_sizes_that_make_no_sense_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="The size of a shard is 0; it must be at least 1"):
        cut(10, 0, 4)
    monkeypatch.setenv("WWW_SHARD", "many")
    with pytest.raises(ValueError, match="WWW_SHARD is 'many'; give a number of images"):
        shard_size()


def test_who_shares(monkeypatch):
    """Alone, a pass is one shard; torchrun's processes share; WWW_SHARD asks for it anywhere."""
    for name in ("WWW_SHARD", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert shard_size() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert shard_size() is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert shard_size() == 4096
    monkeypatch.setenv("WWW_SHARD", "512")
    assert shard_size() == 512


# Workers --------------------------------------------------------------------------------------

PROBE = {"count": 90, "seed": 11}
LAYERS, OPTIONS = ["layer4", "logits"], {"k": 6, "batch_size": 8, "progress": False}


@pytest.fixture(scope="module")
def alone():
    """What one process finds that shares with nobody."""
    return collect(targets.load("world/conv"), world.image_set(**PROBE), LAYERS, **OPTIONS)


def work(store, shard, connection):
    """Collect as one of several workers; tell how many batches went through this one."""
    torch.set_num_threads(1)
    network, calls = targets.load("world/conv"), []
    network.model.register_forward_hook(lambda *_: calls.append(1))
    connection.send("ready")
    connection.recv()
    collect(network, world.image_set(**PROBE), LAYERS, store=Store(store), shard=shard, **OPTIONS)
    connection.send(len(calls))


def crew(processes, store, workers, shard=16):
    """Run workers at once and return how many batches each of them saw."""
    pipes, running = [], []
    for _ in range(workers):
        ours, theirs = processes.Pipe()
        running.append(processes.Process(target=work, args=(store, shard, theirs)))
        running[-1].start()
        pipes.append(ours)
    assert [pipe.recv() for pipe in pipes] == ["ready"] * workers
    for pipe in pipes:
        pipe.send("go")
    calls = [pipe.recv() for pipe in pipes]
    for process in running:
        process.join()
    return calls


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(tmp_path, processes, alone, workers):
    """Breaks if a shard is lost, or answered twice, or a sum depends on who added."""
    calls = crew(processes, tmp_path, workers)
    assert sum(calls) == 12  # batches of 8 among 90 images: each went through one network
    network, probe = targets.load("world/conv"), world.image_set(**PROBE)
    network.model.register_forward_hook(lambda *_: pytest.fail("nothing is left to look at"))
    found = collect(network, probe, LAYERS, store=Store(tmp_path), **OPTIONS)
    assert same(found, alone)
    left = [p for p in tmp_path.glob("shards*/*") if p.suffix != ".lock"]
    assert not left, "the answers for shards go once the whole is kept"


def ask(store, layers):
    """Collect slowly, so that whoever asks at the same time finds a pass under way."""
    torch.set_num_threads(1)
    network = targets.load("world/conv")
    network.model.register_forward_hook(lambda *_: time.sleep(0.05))
    collect(network, world.image_set(**PROBE), layers, store=Store(store), **OPTIONS)


def test_two_who_name_the_layers_in_other_orders_do_not_wait_for_each_other(tmp_path, processes):
    """Breaks if each keeps the lock of its first layer and asks for that of the other's."""
    both = [
        processes.Process(target=ask, args=(tmp_path, order)) for order in (LAYERS, LAYERS[::-1])
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(120)
    stuck = [one for one in both if one.exitcode is None]
    for one in stuck:
        one.kill()
    assert not stuck and [one.exitcode for one in both] == [0, 0]


@pytest.mark.parametrize("shard", [8, 24, 1000])
def test_the_size_of_a_shard_changes_nothing(tmp_path, alone, shard):
    network, probe = targets.load("world/conv"), world.image_set(**PROBE)
    found = collect(network, probe, LAYERS, store=Store(tmp_path), shard=shard, **OPTIONS)
    assert same(found, alone)


def test_class_contributions_and_features_are_shared_as_well(tmp_path, monkeypatch):
    network, probe = targets.load("world/conv"), world.image_set(40, seed=2)
    clip, rows = language.encoder("world"), torch.arange(0, 40, 2)
    options = {"batch_size": 8, "progress": False}
    w, count = by_gradient(network, probe, ["layer2"], **options)
    v = language.image_features(clip, probe, rows, **options)
    monkeypatch.setenv("WWW_SHARD", "8")
    shared, counted = by_gradient(network, probe, ["layer2"], store=Store(tmp_path), **options)
    assert torch.equal(count, counted)
    assert torch.equal(w["layer2"].nan_to_num(9), shared["layer2"].nan_to_num(9))
    again = language.image_features(clip, probe, rows, store=Store(tmp_path), **options)
    assert torch.equal(v, again)
    kept = [p for kind in ("shards", "image-features") for p in (tmp_path / kind).glob("*.json")]
    assert len(kept) == 1, "the answers for shards go once the whole is kept"


def test_a_stopped_crew_goes_on_with_the_shards_that_are_left(tmp_path, alone):
    """Breaks if finished shards are forgotten when the process ends."""
    network, calls = targets.load("world/conv"), []

    def stop(*_):
        calls.append(1)
        if len(calls) == 7:  # in the fourth shard of two batches each
            raise RuntimeError("stopped")

    hook = network.model.register_forward_hook(stop)
    probe, store = world.image_set(**PROBE), Store(tmp_path)
    with pytest.raises(RuntimeError, match="stopped"):
        collect(network, probe, LAYERS, store=store, shard=16, **OPTIONS)
    hook.remove()
    network.model.register_forward_hook(lambda *_: calls.append(1))
    assert same(collect(network, probe, LAYERS, store=store, shard=16, **OPTIONS), alone)
    assert len(calls) == 7 + 6


def test_what_another_has_in_hand_is_left_until_it_is_ready(tmp_path):
    """Breaks if a worker waits beside a shard that is taken while others are free."""
    store, keys = Store(tmp_path), [{"shard": i} for i in range(3)]
    made, order = [], []

    def make(i, _):
        made.append(i)
        return {"n": torch.tensor(i)}, {}

    with store._slot("t", keys[0]).locked():
        for i, found in share(store, "t", keys, make):
            order.append((i, int(found.tensors["n"])))
            if i == 2:
                break
    assert order == [(1, 1), (2, 2)]
    assert [i for i, _ in share(store, "t", keys, make)] == [0, 1, 2]
    assert made == [1, 2, 0]


def test_a_worker_that_comes_late_makes_nothing_again(tmp_path):
    made = list(share(Store(tmp_path), "t", [{"a": 1}], pytest.fail, finished=lambda: True))
    assert made == []


# torchrun and Ray -----------------------------------------------------------------------------

SAID = re.compile(r"^(\w+): \d+ neurons, exemplars (\w{16})$", re.MULTILINE)


def command(store, *launcher, **variables):
    """Run the command line of the room and return what it said of each layer."""
    asked = ["world/conv", "world", "--layers", *LAYERS, "--count", "90", "--batch-size", "8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WWW_STORE": str(store), **variables}
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "wwwlib.exemplars", *asked],
        env=environment, capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return SAID.findall(done.stdout)


def test_two_processes_of_torchrun_say_what_one_says(tmp_path):
    one = command(tmp_path / "one")
    launcher = ("torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "-m")
    two = command(tmp_path / "two", *launcher, WWW_SHARD="16")
    assert [layer for layer, _ in one] == LAYERS
    assert one == two


REFUSED = {
    "network": (["world/cnov", "world"], "world/cnov"),
    "kind of probe set": (["world/conv", "wrld"], "no probe set 'wrld'"),
    "folder": (["world/conv", "folder", "/no/such/folder"], "no folder '/no/such/folder'"),
    "number of exemplars": (["world/conv", "world", "--count", "3"], "k = 40 exemplars"),
    "layer": (["world/conv", "world", "--count", "3", "--k", "2", "--layers", "lyer4"], "layer4"),
    "cluster": (["world/conv", "world", "--count", "3", "--k", "2", "--ray", "0"], "actors is 0"),
}


@pytest.mark.parametrize("words, said", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_gets_a_sentence(tmp_path, monkeypatch, capsys, words, said):
    if "--ray" in words:
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setenv("WWW_STORE", str(tmp_path))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_without_ray_its_option_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    monkeypatch.delitem(sys.modules, "wwwlib.exemplars.on_ray", raising=False)
    assert main(["world/conv", "world", "--count", "3", "--k", "2", "--ray", "1"]) == 2
    assert "--ray needs the extra `ray`" in capsys.readouterr().err


class Fragile(nn.Module):
    """A network whose process is killed, once, when it meets the fourth batch or a later one."""

    def __init__(self, model, marker):
        super().__init__()
        self.model, self.marker, self.met = model, str(marker), 0

    def forward(self, x):
        self.met += 1
        if self.met == 4 and not os.path.exists(self.marker):
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.model(x)


@pytest.mark.slow
def test_ray_finds_the_same_though_an_actor_is_killed(tmp_path, monkeypatch, alone):
    """Breaks if a shard in the hands of a dead actor is lost, or its answer counted twice."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for Ray's processes
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from wwwlib.exemplars.on_ray import collect_on_ray

    whole, probe = targets.load("world/conv"), world.image_set(**PROBE)
    fragile = targets.wrap(
        Fragile(whole.model, tmp_path / "killed"), whole.preprocess, whole.classes, "fragile"
    )
    options = {"k": 6, "batch_size": 8, "shard": 16, "store": Store(tmp_path / "store")}
    try:
        found = collect_on_ray(fragile, probe, ["model.layer4", "logits"], actors=2, **options)
        again = collect_on_ray(fragile, probe, ["model.layer4", "logits"], actors=2, **options)
        left = [p for p in (tmp_path / "store").glob("shards*/*") if p.suffix != ".lock"]
        assert not left and same(found, again), "started again, it has nothing to do"
    finally:
        ray.shutdown()
    assert (tmp_path / "killed").exists(), "no actor was killed: nothing was tested"
    assert same({"layer4": found["model.layer4"], "logits": found["logits"]}, alone)
