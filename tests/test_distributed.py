"""Passes over images: results do not depend on batches, interruptions, or the processes' number."""

import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import fields
from fractions import Fraction
from functools import partial, reduce
from pathlib import Path
from types import SimpleNamespace

import collect
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wwwlib import exemplars, language, targets, world
from wwwlib.activations import capture
from wwwlib.atlas import class_contributions
from wwwlib.baselines.network_dissection import dissect
from wwwlib.distributed import Options, Pass, class_sums, class_totals, concatenate, run
from wwwlib.distributed.passes import _stretches, _Work
from wwwlib.distributed.states import exact_parts, merge_class_sums
from wwwlib.distributed.workers import ranks
from wwwlib.store import Store, tensor_digest
from wwwlib.studies.survey import survey

COUNT, BATCH, LAYERS = 47, 4, ["layer4", "logits"]  # twelve batches, the last of three


# Options --------------------------------------------------------------------------------------


def test_an_option_that_does_not_exist_is_named():
    with pytest.raises(TypeError, match="There is no option 'batchsize'; use one of batch_size, w"):
        Options(batchsize=3)


def test_no_store_is_a_store_that_keeps_nothing():
    assert Options(store=None).store == Store(None)


@pytest.mark.parametrize("name, value", [("batch_size", 0), ("workers", -1), ("actors", -1)])
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; give a whole number, at least"):
        Options(**{name: value})


def test_ray_needs_a_store_and_pillow(tmp_path):
    for store in (None, Store(None)):
        with pytest.raises(ValueError, match="needs a store"):
            Options(actors=2, store=store)
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
    found = exact_parts(values[:, None]).sum(0).sum(0).item()  # parts before wholes
    truth = sum(Fraction(value) for value in values.tolist())
    assert abs(Fraction(found) - truth) <= len(values) * Fraction(2) ** -50 + abs(truth) / 2**52


def test_plain_sums_depend_on_the_order():
    values = (torch.randn(1000) * torch.logspace(-7, 2, 1000)).double()
    orders = [values[torch.randperm(1000)] for _ in range(20)]
    assert len({reduce(torch.add, order).item() for order in orders}) > 1
    cuts = [reduce(torch.add, exact_parts(order[:, None])) for order in orders]
    assert all(torch.equal(cuts[0], one) for one in cuts)


def test_sums_of_many_classes_are_rarely_copied():
    """Breaks if every batch copies the sums of all earlier ones, or the result depends on how."""
    copied = []

    def merge(one, other):
        state = merge_class_sums(one, other)
        copied.append(len(state["classes"]))
        return state

    values, classes = torch.randn(512, 3), torch.randperm(512)

    def step(layers, indices, x):
        return {"x": class_sums(x, classes[indices])}

    work = _Work(SimpleNamespace(step=step, merge=merge), ["x"], 2)
    parts = []
    for i in range(0, 512, 2):
        parts = work.add(parts, torch.arange(i, i + 2), values[i : i + 2])
    found, expected = work.total(parts)["x"], class_sums(values, classes)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert sum(copied) < 10 * 512, "a whole copy each of eight times, not 256 of them"


def test_class_sums_merge_to_those_of_all_images():
    values, classes = torch.randn(50, 3, 2), torch.randint(0, 6, (50,))
    halves = [class_sums(values[part], classes[part]) for part in (slice(20), slice(20, None))]
    sums, count = class_totals(merge_class_sums(*halves), 8).values()
    whole, counted = class_totals(class_sums(values, classes), 8).values()
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
    target.model.register_forward_pre_hook(partial(note, seen))
    return target, seen


def note(seen, _, args):
    """Note the size of a batch, but not of the fixed images of a fingerprint."""
    if len(args[0]) > 2:
        seen.append(len(args[0]))


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
    with pytest.raises(ValueError, match="give a list of names"):
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


def digest_of(made):
    """Digest records and tensors in any nesting of dictionaries, tuples and lists."""
    if isinstance(made, torch.Tensor):
        return tensor_digest({"x": made})
    if isinstance(made, dict):
        return [(str(key), digest_of(value)) for key, value in made.items()]
    if isinstance(made, tuple | list):
        return [digest_of(value) for value in made]
    return digest_of(vars(made)) if hasattr(made, "__dict__") else made


def all_passes(store):
    """Make passes of all kinds; returns digests, and the batches of the first and at the end."""
    target, seen = targets.load("world/conv"), []
    target.model.register_forward_pre_hook(partial(note, seen))
    images = world.image_set(COUNT, 11)
    options = {"batch_size": BATCH, "store": store, "progress": False}
    made = [run(activations(target, images), **options)]
    first = len(seen)
    made.append(top := exemplars.collect(target, images, LAYERS, 5, **options))
    made.append(class_contributions(target, images, ["layer2"], **options))
    clip = language.encoder("world")
    made.append(language.embed_exemplars(clip, images, top["logits"], **options))
    made.append(survey(target, images, made[2][0], (3,), **options))
    made.append(dissect(target, images, ["layer2"], **options))
    before = len(seen)
    run(activations(target, images), **options)
    return digest_of(made), first, len(seen) - before


@pytest.fixture(scope="module")
def alone():
    return all_passes(None)[0]


@pytest.mark.parametrize("size, shared", [(1, True), (2, False), (5, True)])
def test_every_rank_receives_the_bytes_that_one_process_computes(
    tmp_path, processes, alone, size, shared
):
    """Breaks if an image is read twice or never, or in another batch, or a sum rounds."""
    stores = [tmp_path / ("all" if shared else str(rank)) for rank in range(size)]
    found = crew(processes, size, all_passes, stores)
    assert [digests == alone for digests, _, _ in found] == [True] * size, found
    assert sum(first for _, first, _ in found) == 12
    assert [again for _, _, again in found] == [0] * size, "only rank 0 asks its store"
    left = [p for p in tmp_path.rglob("*.checkpoint/*") if p.suffix != ".lock"]
    assert not left, "checkpoints go once the whole is kept"


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


# torchrun -------------------------------------------------------------------------------------

PRINTED = re.compile(r"^(\w+): \d+ neurons, exemplars (\w{16})$", re.MULTILINE)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_two_processes_of_torchrun_find_what_one_finds(tmp_path, monkeypatch, capsys):
    arguments = ["world/conv", "world", "--layers", *LAYERS]
    arguments += ["--count", str(COUNT), "--batch-size", str(BATCH), "--k", "2"]
    monkeypatch.setenv("WWW_STORE", str(tmp_path / "two"))
    done = subprocess.run(
        [*TORCHRUN, collect.__file__, *arguments],
        capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("WWW_STORE", str(tmp_path / "one"))
    assert collect.main(arguments) == 0
    one = PRINTED.findall(capsys.readouterr().out)
    assert [layer for layer, _ in one] == LAYERS
    assert one == PRINTED.findall(done.stdout)


RESTARTED = """
import os, sys, torch
from test_distributed import activations, run, toy, world
from wwwlib.store import Store, tensor_digest
torch.set_num_threads(1)
root, seen, target = sys.argv[1], [], toy()
attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
def fail(_, args):
    seen.extend([1] * (len(args[0]) > 2))  # not for a fingerprint
    if rank == "1" and attempt == "0" and len(seen) == 5:
        os._exit(3)
target.model.register_forward_pre_hook(fail)
options = {"batch_size": 8, "checkpoint_seconds": 0, "store": Store(root), "progress": False}
found = run(activations(target, world.image_set(92, seed=11), ["0", "logits"]), **options)
digest = tensor_digest({layer: found[layer]["z"] for layer in found})
with open(f"{root}/{rank}.txt", "w") as file:
    file.write(f"{len(seen)} {digest}")
"""


def toy():
    """Return a small network that imports no torchvision, so that processes start sooner."""

    def preprocess(image):
        pixels = torch.frombuffer(bytearray(image.resize((16, 16)).tobytes()), dtype=torch.uint8)
        return pixels.reshape(16, 16, 3).movedim(2, 0) / 255

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    return targets.wrap(model.eval(), preprocess, list("abcd"), "toy")


def test_after_an_elastic_restart_each_rank_resumes_at_its_checkpoint(tmp_path):
    """Rank 1 fails at its fifth batch of six; all are restarted, and repeat nothing but that."""
    script = tmp_path / "script.py"
    script.write_text(RESTARTED)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [*TORCHRUN, "--max-restarts", "1", str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (_, first), (calls, second) = ((tmp_path / f"{r}.txt").read_text().split() for r in (0, 1))
    assert calls == "2" and first == second
    alone = run(activations(toy(), world.image_set(92, seed=11), ["0", "logits"]), batch_size=8)
    assert first == tensor_digest({layer: alone[layer]["z"] for layer in alone})


# Ray ------------------------------------------------------------------------------------------


class Fragile(nn.Module):
    """A network whose process is killed, once, at its fourth batch."""

    def __init__(self, model, marker):
        super().__init__()
        self.model, self.marker, self.seen = model, str(marker), 0

    def forward(self, x):
        self.seen += 1
        if self.seen == 4 and not os.path.exists(self.marker):
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.model(x)


@pytest.mark.slow
def test_ray_finds_the_same_though_an_actor_is_killed(tmp_path, monkeypatch):
    """Breaks if a stretch in the hands of a dead actor is lost, or its state counted twice."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for Ray's processes
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setattr("wwwlib.distributed.passes._RAY_IMAGES", 16)
    conv, probe = targets.load("world/conv"), world.image_set(COUNT, seed=11)
    fragile = targets.wrap(
        Fragile(conv.model, tmp_path / "killed"), conv.preprocess, conv.classes, "fragile"
    )
    options = {"k": 6, "batch_size": BATCH, "store": Store(tmp_path / "store"), "actors": 2}
    layers = ["model.layer4", "logits"]
    try:
        found = exemplars.collect(fragile, probe, layers, **options)
    finally:
        ray.shutdown()
    assert (tmp_path / "killed").exists(), "no actor was killed: nothing was tested"
    left = [p for p in (tmp_path / "store").glob("stretches*/*") if p.suffix != ".lock"]
    assert not left
    again = exemplars.collect(fragile, probe, layers, **options)  # starts no cluster
    alone = exemplars.collect(conv, probe, LAYERS, 6, batch_size=BATCH, progress=False)
    for one, two in zip(layers, LAYERS, strict=True):
        for each in fields(exemplars.Exemplars):
            values = [getattr(made[name], each.name) for made, name in
                      ((found, one), (again, one), (alone, two))]  # fmt: skip
            assert digest_of(values[0]) == digest_of(values[1]) == digest_of(values[2])
