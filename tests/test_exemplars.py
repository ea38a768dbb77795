"""Exemplars: streaming must equal sorting everything at once, interrupted or not."""

import re
import sys
import time
import warnings
from functools import reduce

import pytest
import torch
from collect import main
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from wwwlib import images, targets, world
from wwwlib.exemplars import CONSTANT, NOT_FINITE, OK, _finish, _merge, _state, collect
from wwwlib.images import ImageSet
from wwwlib.store import Store, tensor_digest
from wwwlib.targets import wrap

CLASSES = 3


class Table(nn.Module):
    """A network whose activations are looked up: image i is a colour that encodes i."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)
        self.hidden = nn.Identity()

    def forward(self, x):
        index = (x[:, 0, 0, 0] + 256 * x[:, 1, 0, 0]).round().long()
        return self.hidden(self.table[index % len(self.table)])[:, :CLASSES]


def to_tensor(image):
    return torch.tensor(list(image.getpixel((0, 0))), dtype=torch.float32).view(3, 1, 1)


def number(i):
    return Image.new("RGB", (1, 1), (i % 256, i // 256, 0))


def numbered(count, labels=None, classes=("a", "b", "c")):
    labels = tuple(labels) if labels is not None else (None,) * count
    names = tuple(str(i) for i in range(count))
    return ImageSet("numbers", f"numbers-{count}-{labels}", names, labels, classes, number)


def target(table):
    return wrap(Table(table), to_tensor, ["a", "b", "c"], "table")


def literal(table, k):
    """Sort every column in plain Python: by value, best first, then by image index."""
    index = []
    for column in table.T.tolist():
        order = sorted(range(len(column)), key=lambda i: (-column[i], i))
        index.append(order[:k])
    return torch.tensor(index)


@pytest.fixture
def table():
    """Whole numbers below 12, so ties are everywhere."""
    return torch.randint(0, 12, (97, 7)).float()


@pytest.mark.parametrize("batch_size", [1, 5, 32, 97, 200])
@pytest.mark.parametrize("k", [1, 8, 97])
def test_streaming_equals_a_full_sort_ties_included(table, batch_size, k):
    """Breaks when ties are left to topk, which orders them as it likes."""
    found = collect(
        target(table), numbered(97), ["hidden"], k, batch_size=batch_size, progress=False
    )
    expected = literal(table, k)
    assert torch.equal(found["hidden"].index, expected)
    assert torch.equal(found["hidden"].value, table.T.gather(1, expected))


def test_workers_change_nothing(table):
    one = collect(
        target(table), numbered(97), ["hidden"], 9, batch_size=8, workers=0, progress=False
    )
    two = collect(
        target(table), numbered(97), ["hidden"], 9, batch_size=8, workers=2, progress=False
    )
    assert torch.equal(one["hidden"].index, two["hidden"].index)


def test_all_layers_are_read_in_one_pass(table):
    """Breaks when images go through the network once a layer."""
    network, calls = target(table), []
    network.model.register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
    found = collect(network, numbered(97), ["hidden", "logits"], 5, batch_size=97, progress=False)
    assert calls.count(97) == 1 and max(calls) == 97
    assert torch.equal(found["logits"].index, literal(table[:, :CLASSES], 5))


def test_neurons_that_say_nothing_are_marked():
    """A neuron that is constant or never finite has no exemplars worth a name."""
    table = torch.rand(20, 5) - 0.4
    table[:, 3] = 0.5
    table[:, 4] = torch.nan
    table[2, 0] = torch.nan
    table[3, 1] = torch.inf
    found = collect(target(table), numbered(20), ["hidden"], 4, batch_size=6, progress=False)[
        "hidden"
    ]
    assert found.status.tolist() == [OK, OK, OK, CONSTANT, NOT_FINITE]
    assert found.index[3].tolist() == [0, 1, 2, 3]
    assert found.index[4].tolist() == [-1] * 4
    assert 2 not in found.index[0]
    assert 3 not in found.index[1]
    assert not found.value[:4].isnan().any()


def test_a_neuron_with_too_few_finite_values_keeps_them_first():
    table = torch.full((6, 3), torch.nan)
    table[4, 0], table[1, 0] = 1.0, 2.0
    found = collect(target(table), numbered(6), ["hidden"], 4, batch_size=2, progress=False)[
        "hidden"
    ]
    assert found.index[0].tolist() == [1, 4, -1, -1]
    assert found.status[0] == NOT_FINITE


def test_class_sums_by_label_and_by_prediction(table):
    labels = [i % CLASSES if i % 5 else None for i in range(97)]
    found = collect(
        target(table - 6), numbered(97, labels), ["hidden"], 3, batch_size=16, progress=False
    )
    sums = torch.zeros(CLASSES, 7, dtype=torch.float64)
    absolute, count = sums.clone(), torch.zeros(CLASSES, dtype=torch.int64)
    for row, label in zip((table - 6).double(), labels, strict=True):
        c = int(row[:CLASSES].argmax()) if label is None else label
        sums[c] += row
        absolute[c] += row.abs()
        count[c] += 1
    assert torch.equal(found["hidden"].class_sum, sums)
    assert torch.equal(found["hidden"].class_abs, absolute)
    assert torch.equal(found["hidden"].class_count, count)


@pytest.mark.parametrize("classes", ["bxa", "bxayz"])
def test_labels_count_by_the_names_of_their_classes(table, classes):
    """Breaks when the number of a class in a folder is taken for its number in the network."""
    labels = [i % 3 for i in range(97)]
    own = [{"b": 1, "a": 0, "x": None}[classes[label]] for label in labels]
    with pytest.warns(UserWarning, match=r"32 of 97 images have no label: 'x'"):
        found = collect(
            target(table), numbered(97, labels, tuple(classes)), ["hidden"], 3, progress=False
        )["hidden"]
    plain = collect(target(table), numbered(97, own), ["hidden"], 3, progress=False)["hidden"]
    assert torch.equal(found.class_count, plain.class_count)
    assert torch.equal(found.class_sum, plain.class_sum)


@pytest.mark.parametrize(
    ("k", "said"), [(19, []), (20, ["k = 20 exemplars are 21% .*give k = 4 "])]
)
def test_many_exemplars_of_few_images_are_warned_of(table, k, said):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        collect(target(table), numbered(97), ["hidden"], k, progress=False)
    assert len(found) == len(said)
    assert all(re.search(text, str(one.message)) for text, one in zip(said, found, strict=True))


def test_errors_are_sentences_before_any_work(table):
    with pytest.raises(ValueError, match=r"k = 98 exceeds the 97 images"):
        collect(target(table), numbered(97), ["hidden"], 98)
    for k in (0, 1.5, "3", True):
        with pytest.raises(ValueError, match=f"k is {k!r}; give a whole number, at least 1"):
            collect(target(table), numbered(97), ["hidden"], k)
    with pytest.raises(ValueError, match="give a list of names"):
        collect(target(table), numbered(97), "hidden", 3)
    with pytest.raises(ValueError, match=r"no layer 'hiden'.*'hidden'"):
        collect(target(table), numbered(97), ["hiden"], 3, progress=False)


def test_the_store_answers_the_second_time(table, tmp_path):
    network, calls, store = target(table), [], Store(tmp_path)
    network.model.register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
    options = {"batch_size": 97, "store": store, "progress": False}
    first = collect(network, numbered(97), ["hidden", "logits"], 5, **options)
    again = collect(network, numbered(97), ["logits", "hidden"], 5, **options)
    assert calls.count(97) == 1
    assert torch.equal(first["hidden"].index, again["hidden"].index)
    assert again["hidden"].images == 97
    collect(network, numbered(97), ["hidden"], 6, **options)
    assert calls.count(97) == 2


def test_other_weights_or_images_are_never_answered_from_the_store(table, tmp_path):
    """Breaks when a key forgets the network, the images or k."""
    options = {"k": 5, "store": Store(tmp_path), "progress": False}
    collect(target(table), numbered(97), ["hidden"], **options)
    other = collect(target(table.flip(0)), numbered(97), ["hidden"], **options)
    assert torch.equal(other["hidden"].index, literal(table.flip(0), 5))
    fewer = collect(target(table), numbered(50), ["hidden"], **options)
    assert torch.equal(fewer["hidden"].index, literal(table[:50], 5))


def test_an_interrupt_from_the_keyboard_loses_nothing(table, tmp_path):
    """The second run starts where the first was stopped, not at the first image."""
    seen, network = [], target(table)

    def stop_late(module, args, output):
        seen.append(len(output))
        if len(seen) == 7:
            raise KeyboardInterrupt

    hook = network.model.register_forward_hook(stop_late)
    options = {"batch_size": 10, "store": Store(tmp_path), "progress": False}
    with pytest.raises(KeyboardInterrupt):
        collect(network, numbered(97), ["hidden"], 5, **options)
    hook.remove()
    network.model.register_forward_hook(lambda *_: seen.append(0))
    found = collect(network, numbered(97), ["hidden"], 5, **options)
    assert len(seen) == (3 + 4) + (3 + 7), "each run begins with three batches of fixed images"
    assert torch.equal(found["hidden"].index, literal(table, 5))


def test_a_checkpoint_of_other_layers_is_not_continued(table, tmp_path):
    """Breaks if the states of layers that are no longer missing stand in for those that are."""
    network, calls = target(table), []
    options = {"batch_size": 10, "store": Store(tmp_path), "progress": False}

    def fail_late(*_):
        calls.append(1)
        if len(calls) == 6:
            raise RuntimeError("stopped")

    hook = network.model.register_forward_hook(fail_late)
    with pytest.raises(RuntimeError, match="stopped"):
        collect(network, numbered(97), ["hidden", "logits"], 5, checkpoint_seconds=0, **options)
    hook.remove()
    found = collect(network, numbered(97), ["hidden"], 5, **options)
    assert torch.equal(found["hidden"].index, literal(table, 5))


def run_pass(store, pause=0.0, started=None):
    """Collect two layers with a checkpoint after every batch."""
    torch.set_num_threads(1)
    network = target(torch.arange(97 * 7).view(97, 7) * 37 % 11 * 1.0)
    network.model.register_forward_hook(lambda *_: time.sleep(pause))
    if started:
        started.send("started")
    collect(
        network,
        numbered(97),
        ["hidden", "logits"],
        5,
        batch_size=8,
        store=Store(store),
        progress=False,
        checkpoint_seconds=0,
    )


def contents(store):
    return {
        path.relative_to(store): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path, processes):
    """Twenty kills, each a random while after the start; then one run to the end."""
    for delay in torch.rand(20).tolist():
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=run_pass, args=(tmp_path / "killed", 0.02, theirs))
        process.start()
        ours.recv()
        time.sleep(0.3 * delay)
        process.kill()
        process.join()
    run_pass(tmp_path / "killed")
    run_pass(tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "whole")) == 4  # two layers: tensors and sidecar each


def test_crops_are_probe_images_like_any_other():
    """Exemplars among crops know which image they were cut from: index // crops per image."""
    whole = world.image_set(6, seed=3)
    assert len(images.crops(whole)) == 30


class Small:
    """A memory for `most` images at once: more of them and the network gives up."""

    def __init__(self, network, most, error=None):
        self.most, self.seen = most, []
        self.error = error or torch.OutOfMemoryError("no memory left")
        network.model.register_forward_pre_hook(self.check)

    def check(self, module, args):
        self.seen.append(len(args[0]))
        if len(args[0]) > self.most:
            raise self.error


@pytest.mark.parametrize("most", [2, 3, 7])
def test_a_batch_too_large_for_the_memory_is_halved_and_nothing_else_changes(table, most):
    """Breaks if an image is lost or seen twice where a batch is cut, or the size is not kept."""
    network = target(table)
    memory = Small(network, most)
    found = collect(network, numbered(97), ["hidden"], 9, batch_size=32, progress=False)["hidden"]
    plain = collect(target(table), numbered(97), ["hidden"], 9, batch_size=32, progress=False)[
        "hidden"
    ]
    for name in ("index", "value", "class_sum", "class_count"):
        assert torch.equal(getattr(found, name), getattr(plain, name)), name
    sizes = memory.seen[3:]  # after the fingerprint
    failed = [size for size in sizes if size > most]
    assert failed == [32, 16, 8, 4, 2][: len(failed)]  # once each: later batches know
    assert sum(size for size in sizes if size <= most) == 97


def test_where_not_one_image_fits_a_sentence_says_so(table):
    network = target(table)
    Small(network, 0)
    with pytest.raises(RuntimeError, match="Not even 2 images fit into the memory of cpu"):
        collect(network, numbered(97), ["hidden"], 5, batch_size=4, progress=False)


def test_another_error_of_the_network_is_not_taken_for_lack_of_memory(table):
    network = target(table)
    Small(network, 2, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        collect(network, numbered(97), ["hidden"], 5, batch_size=4, progress=False)


def test_half_precision_is_near_full_precision_and_kept_apart_from_it(tmp_path):
    """Breaks if a precision changes nothing, changes much, or is answered by another's result."""
    network, probe = targets.load("world/conv"), world.image_set(60, seed=5)
    options = {"k": 60, "store": Store(tmp_path), "progress": False}
    full = collect(network, probe, ["layer4"], **options)["layer4"]
    half = collect(network, probe, ["layer4"], precision="bfloat16", **options)["layer4"]
    assert half.value.dtype == torch.float32
    assert not torch.equal(full.value, half.value)
    # bfloat16 keeps 8 bits: values of the size of the largest are right to about 1 in 128
    assert (full.value - half.value).abs().max() < full.value.abs().max() / 32
    with pytest.raises(ValueError, match="precision is 'int8'; use one of float32, bfloat16"):
        collect(network, probe, ["layer4"], 3, precision="int8")


# States of stretches --------------------------------------------------------------------------

NEURONS, K = 4, 5


@st.composite
def stretches(draw):
    """Draw activations full of ties, some not finite, and cut them into adjacent stretches."""
    count = draw(st.integers(3, 30))
    some = st.sampled_from([0.0, -0.0, 1.0, 0.1, 1e-4, -3.5, 250.3, float("nan"), float("inf")])
    row = st.lists(some, min_size=NEURONS, max_size=NEURONS)
    z = torch.tensor(draw(st.lists(row, min_size=count, max_size=count)))
    members = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    borders = draw(st.sets(st.integers(1, count - 1), min_size=2, max_size=6))
    pieces = torch.arange(count).tensor_split(sorted(borders))
    return [_state(i, z[i], members[i]) for i in pieces], _state(torch.arange(count), z, members)


def merge(one, other):
    return _merge(K, one, other)


def finished(state):
    return tensor_digest(_finish(K, 3, state))


@given(stretches())
@settings(deadline=None)
def test_adjacent_stretches_merge_to_the_state_of_all_images(drawn):
    """Breaks if ties are kept by arrival instead of by index, or a sum by order of addition."""
    pieces, whole = drawn
    assert finished(reduce(merge, pieces)) == finished(whole)


@given(stretches())
@settings(deadline=None)
def test_merging_is_associative(drawn):
    (a, b, c, *_), _ = drawn
    left, right = merge(merge(a, b), c), merge(a, merge(b, c))
    assert tensor_digest(left) == tensor_digest(right)


# Command line ---------------------------------------------------------------------------------

REFUSED = {
    "network": (["world/cnov", "world"], "world/cnov"),
    "kind of probe set": (["world/conv", "wrld"], "The probe set is 'wrld'"),
    "folder": (["world/conv", "folder", "/no/such/folder"], "no folder '/no/such/folder'"),
    "number of exemplars": (["world/conv", "world", "--count", "3"], "k = 40 exceeds"),
    "layer": (["world/conv", "world", "--count", "3", "--k", "2", "--layers", "lyer4"], "layer4"),
    "cluster": (["world/conv", "world", "--count", "3", "--k", "2", "--ray", "-1"], "actors is -1"),
}


@pytest.mark.parametrize("words, expected", REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_of_the_command_line_are_explained(
    tmp_path, monkeypatch, capsys, words, expected
):
    monkeypatch.setenv("WWW_STORE", str(tmp_path))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error


def test_without_ray_its_option_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WWW_STORE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    assert main(["world/conv", "world", "--count", "3", "--k", "2", "--ray", "1"]) == 2
    assert "pip install 'wwwlib[ray]'" in capsys.readouterr().err
