"""Targets: names, weights, preprocessing, keys, visible boxes, and error messages."""

import pickle
import subprocess
import sys
import warnings
from functools import partial

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import contributions, targets, world
from wwwlib.activations import capture
from wwwlib.images import imagenet_synsets
from wwwlib.store import digest
from wwwlib.studies import datasets
from wwwlib.targets.examine import fixed_images

YCBCR = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])


def to_tensor(image, size=8):
    return pil_to_tensor(image.resize((size, size))) / 255


def sized(size):
    return partial(to_tensor, size=size)


def small(classes=3):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def wrapped(model=None, preprocess=to_tensor, classes=("a", "b", "c"), name="small", **options):
    return targets.wrap(model or small(), preprocess, classes, name, **options)


@pytest.fixture(scope="module")
def resnet():
    return targets.load("torchvision/resnet18", weights="random")


def test_torchvision_brings_classes_preprocessing_and_layers(resnet):
    assert len(resnet.classes) == 1000 and resnet.classes[0] == "tench"
    x = resnet.preprocess(Image.new("RGB", (300, 280)))
    assert x.shape == (3, 224, 224)
    assert not resnet.model.training
    layers = resnet.layers()
    assert layers[-1] == "logits" and {"layer4", "layer4.1.conv2", "fc"} < set(layers)
    assert resnet.module("logits") is resnet.model


def test_timm_brings_classes_preprocessing_and_token_geometry():
    target = targets.load("timm/vit_tiny_patch16_224", weights="random")
    assert target.classes == tuple(lemmas[0] for lemmas in imagenet_synsets().values())
    assert (target.prefix_tokens, target.grid, target.class_token) == (1, (14, 14), True)
    assert target.preprocess(Image.new("RGB", (300, 280))).shape == (3, 224, 224)
    model = timm.create_model("vit_tiny_patch16_224", class_token=False, global_pool="avg")
    target = targets.wrap(model, sized(224), target.classes, "no class token")
    assert (target.prefix_tokens, target.class_token) == (0, False)


def test_registers_count_as_prefix_tokens():
    model = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=3, reg_tokens=4
    )
    assert wrapped(model, sized(32)).prefix_tokens == 5
    assert wrapped(model, sized(32)).grid == (4, 4)


def test_torchvision_transformer_has_one_prefix_token():
    model = models.VisionTransformer(32, 8, 1, 2, 16, 16, num_classes=3)
    target = wrapped(model, sized(32))
    assert (target.prefix_tokens, target.grid) == (1, (4, 4))


def test_containers_that_are_never_called_are_no_layers():
    model = models.VisionTransformer(32, 8, 1, 2, 16, 16, num_classes=3)
    model.parts = nn.ModuleList([nn.ModuleDict({"relu": nn.ReLU()})])
    layers = wrapped(model, sized(32)).layers()
    assert layers[0] == "conv_proj" and layers[-2:] == ("parts.0.relu", "logits")
    assert not {"", "parts", "parts.0"} & set(layers)


@pytest.mark.parametrize("name", ["conv", "vit"])
def test_world_networks(name):
    target = targets.load(f"world/{name}", weights="random")
    assert target.classes == tuple(world.CLASSES)
    x = target.preprocess(world.render(world.sample(0)).image)
    assert x.shape == (3, 64, 64)
    assert target.model(x[None]).shape == (1, len(world.CLASSES))


@pytest.mark.parametrize("name", ["conv", "vit", "conv-biased", "vit-biased"])
def test_world_weights_are_found_or_named_in_an_error(name):
    file = world.DATA / f"{name}.safetensors"
    if not file.is_file():
        with pytest.raises(FileNotFoundError, match=rf"{name}\.safetensors.*MB.*make world"):
            targets.load(f"world/{name}")
        return
    target = targets.load(f"world/{name}")
    assert {p.dtype for p in target.model.parameters()} == {torch.float32}


def test_weights_from_a_file(tmp_path):
    """safetensors, a bare state dict, and one wrapped and prefixed as checkpoints are."""
    state = models.squeezenet1_1(num_classes=5).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    checkpoint = {"state_dict": {f"module.{name}": v for name, v in state.items()}, "epoch": 3}
    torch.save(checkpoint, tmp_path / "c.pth.tar")
    names = [f"place {i}" for i in range(5)]
    for file in ("a.safetensors", "b.pth", "c.pth.tar"):
        target = targets.load("torchvision/squeezenet1_1", tmp_path / file, classes=names)
        assert target.classes == tuple(names)
        assert all(torch.equal(v, state[k]) for k, v in target.model.state_dict().items())
        assert target.digest == targets.wrap(target.model, target.preprocess, names, "x").digest
    with pytest.raises(ValueError, match=r"do not fit.*classifier\.1\.weight"):
        targets.load("torchvision/squeezenet1_1", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"do not fit.*Missing"):
        targets.load("timm/test_resnet", tmp_path / "a.safetensors", classes=names)


class Trap:
    """Would run code if it were unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the weights file was unpickled",))


@pytest.mark.parametrize(
    "content", [b"", b"these are no weights", b"cut"], ids=["empty", "words", "cut"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"bad{suffix}"
    if content == b"cut":
        (torch.save if suffix == ".pth" else save_file)(small().state_dict(), path)
        content = path.read_bytes()[:-40]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\{suffix}' is damaged"):
        targets.read_weights(path)


def test_hostile_weights_are_refused_and_do_not_run(tmp_path):
    torch.save({"weight": torch.zeros(2), "trap": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match=r"trap\.pth.*holds more than tensors"):
        targets.read_weights(tmp_path / "trap.pth")


def test_a_file_that_holds_no_state_dict_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth.*no single state dict"):
        targets.read_weights(tmp_path / "list.pth")


def test_errors_of_missing_weights_give_file_size_and_alternatives():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth.*97\.8 MB.*'IMAGENET1K_V1'"):
        targets.load("torchvision/resnet50", "nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth.*22\.9 MB.*'random'"):
        targets.load("timm/vit_tiny_patch16_224", "nowhere.pth")


def test_errors_of_failed_downloads_give_file_and_place(monkeypatch, tmp_path):
    """None and "DEFAULT" mean the library's own weights, which need the network once."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    for weights in (None, "DEFAULT", "ResNet18_Weights.IMAGENET1K_V1"):

        def offline(*args, **options):
            assert options["weights_only"]
            raise OSError("no route to host")

        monkeypatch.setattr(models._api, "load_state_dict_from_url", offline)
        with pytest.raises(FileNotFoundError, match=rf"resnet18-\w+\.pth \(45 MB\).*{tmp_path}"):
            targets.load("torchvision/resnet18", weights)
    build = timm.create_model

    def create(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host")
        return build(name, **options)

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(FileNotFoundError, match=r"vit_tiny.*augreg.* \(about 23 MB\).*weights="):
        targets.load("timm/vit_tiny_patch16_224")


def test_fetched_weights_are_used_with_their_own_preprocessing(monkeypatch):
    state = models.mobilenet_v3_large().state_dict()
    monkeypatch.setattr(models._api, "load_state_dict_from_url", lambda *_, **__: state)
    for weights, size in (("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232), (None, 232)):
        target = targets.load("torchvision/mobilenet_v3_large", weights)
        assert target.preprocess.resize_size == [size]
        assert all(torch.equal(v, state[k]) for k, v in target.model.state_dict().items())


def test_a_file_with_a_published_name_gets_that_preprocessing(tmp_path):
    path = tmp_path / "mobilenet_v3_large-8738ca79.pth"
    torch.save(models.mobilenet_v3_large().state_dict(), path)
    assert targets.load("torchvision/mobilenet_v3_large", path).preprocess.resize_size == [256]


def test_published_densenets_with_old_names_load(monkeypatch):
    state = models.densenet121().state_dict()
    old = {k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for k, v in state.items()}
    monkeypatch.setattr(models._api, "load_state_dict_from_url", lambda *_, **__: old)
    model = targets.load("torchvision/densenet121").model
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet50", "library/model"),
        ("keras/resnet50", "torchvision, timm, world"),
        ("torchvision/resnet5O", "'resnet50'"),
        ("torchvision/fcn_resnet50", "nearest are .*resne"),
        ("timm/vit_tiny_patch16_2244", "'vit_tiny_patch16_224'"),
        ("timm/vit_tiny_patch16_224.augreg", "'vit_tiny_patch16_224.augreg_in21k_ft_in1k'"),
        ("world/con", "'world/conv'"),
    ],
)
def test_unknown_names_get_the_nearest(name, text):
    with pytest.raises(ValueError, match=text):
        targets.load(name, "random")


def test_world_refuses_what_it_does_not_take():
    with pytest.raises(ValueError, match="give weights at most"):
        targets.load("world/conv", "random", classes=["a"])


def test_timm_without_class_names_is_an_error():
    with pytest.raises(ValueError, match=r"has 0 outputs.*pass classes="):
        targets.load("timm/vit_small_patch8_224.dino", "random")


def test_unknown_layers_get_the_nearest(resnet):
    with pytest.raises(ValueError, match=r"no layer 'layer5'; the nearest are 'layer4'"):
        resnet.module("layer5")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"preprocess": None}, ValueError, "object is not callable"),
        ({"classes": "abc"}, ValueError, "list of the class names"),
        ({"classes": []}, ValueError, "classes is empty; give the class names"),
        ({"layouts": {"9": "BN"}}, ValueError, "no layer '9'"),
        ({"layouts": {"0": "NCHW"}}, ValueError, "'NCHW'; use one of BNHW"),
        ({"prefix_tokens": -1}, ValueError, "prefix_tokens is -1"),
        ({"prefix_tokens": 0, "grid": (3,)}, ValueError, "rows, columns"),
        ({"grid": (3, 3)}, ValueError, "give prefix_tokens"),
    ],
)
def test_wrap_names_the_bad_argument(options, error, text):
    with pytest.raises(error, match=text):
        wrapped(**options)
    with pytest.raises(TypeError, match="model is a function"):
        targets.wrap(to_tensor, to_tensor, ["a"], "x")


def test_keys_are_json_and_distinguish_targets():
    """Different targets must not share artifacts; equal targets must."""
    model = small()
    base = digest(wrapped(model).key())
    assert digest(wrapped(model).key()) == base
    same = small()
    same.load_state_dict(model.state_dict())
    assert digest(wrapped(same).key()) == base
    same[1] = nn.GELU()
    others = [
        wrapped(same),
        wrapped(small()),
        wrapped(model, name="other"),
        wrapped(model, preprocess=lambda image: to_tensor(image)),
        wrapped(model, preprocess=lambda image: to_tensor(image) * 2),
        wrapped(model, prefix_tokens=0, grid=(2, 2)),
        wrapped(model, layouts={"0": "BNHW"}),
    ]
    assert len({base, *(digest(other.key()) for other in others)}) == 8


def test_random_preprocessing_is_refused():
    with pytest.raises(ValueError, match="preprocessing is random"):
        wrapped(preprocess=lambda image: torch.rand(3, 8, 8)).key()


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18", "world/conv"])
def test_targets_can_be_pickled(name):
    target = targets.load(name, "random")
    again = pickle.loads(pickle.dumps(target))
    assert again.key() == target.key()


def test_to_keeps_everything_but_the_device():
    target = wrapped()
    assert target.device.type == "cpu"
    moved = target.to("meta")
    assert moved.device.type == "meta" and moved.digest == target.digest
    assert repr(moved) == "Target('small': 3 classes, on meta)"


def test_importing_targets_imports_no_library_of_networks():
    """Breaks if a script that wraps its own network waits for libraries that it does not use."""
    code = (
        "import sys, torch; import wwwlib.targets, wwwlib.images; from torch import nn; "
        "wwwlib.targets.wrap(nn.Flatten(), lambda i: torch.ones(3, 1, 1), ['a', 'b', 'c'], 'x'); "
        "heavy = 'timm torchvision open_clip transformers captum pandas matplotlib scipy upath'; "
        "print([name for name in heavy.split() if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.real
def test_real_efficientnet_classifies_the_photographs(real, real_weights):
    """A known answer, .883 on 1,000 photographs; here on 64 of them."""
    from wwwlib import images

    file = real_weights / "efficientnet_lite0.safetensors"
    target = targets.load("timm/tf_efficientnet_lite0", file)
    probe = images.subset(datasets.imagenet(real / "photos"), range(0, 640, 10))
    hits = 0
    with torch.inference_mode():
        for indices, x in images.batches(probe, target.preprocess, 32):
            hits += sum(
                probe.label(i) == c
                for i, c in zip(indices.tolist(), target.model(x).argmax(1).tolist(), strict=True)
            )
    assert hits / len(probe) > 0.8


# Unusual networks -----------------------------------------------------------------------------


class Around(nn.Module):
    """A network whose output is changed by a function."""

    def __init__(self, change, classes=3):
        super().__init__()
        self.body, self.change = small(classes), change

    def forward(self, x):
        return self.change(self.body(x))


class Output(dict):
    """As transformers return it: a dictionary with attributes."""

    @property
    def logits(self):
        return self["logits"]


@pytest.mark.parametrize(
    "change",
    [
        lambda y: (y,),
        lambda y: {"out": y},
        lambda y: Output(logits=y, hidden=y[None]),
        lambda y: y[:, :, None, None],
        lambda y: y.softmax(1),
        lambda y: 100 * y.softmax(1),
        lambda y: y.log_softmax(1),
    ],
)
def test_outputs_in_other_forms_are_read_as_logits(change):
    """A softmax inside the network used to be taken for logits: .106 was shown for 1.0."""
    model, x = Around(change), torch.randn(4, 3, 8, 8)
    with warnings.catch_warnings(record=True) as said:
        target = wrapped(model)
    is_softmax = torch.is_tensor(model(x)) and bool((model(x).flatten(1) > 0).all())
    assert ["taken for probabilities" in str(one.message) for one in said] == [True] * is_softmax
    expected = model.body(x).softmax(1)
    assert torch.allclose(target.probabilities(target.model(x)), expected, atol=1e-6)
    assert "body.0" in target.layers() and target.module("body.0") is model.body[0]
    assert torch.equal(next(iter(target.network.parameters())), model.body[0].weight)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_classes_that_do_not_exclude_each_other_have_their_own_probabilities(inside, classes):
    model = Around(torch.sigmoid if inside else lambda y: y, classes)
    names = ["dog", "grass", "sky"][:classes]
    target = wrapped(model, classes=names, outputs="sigmoid")
    x = torch.randn(4, 3, 8, 8)
    found, expected = target.model(x), model.body(x)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(target.probabilities(found), expected.sigmoid(), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        (Around(lambda y: y, 1), {"classes": ["dog"]}, "single output.*outputs='sigmoid'"),
        (Around(torch.sigmoid), {}, r"in \[0, 1\] and do not add up to 1.*outputs='sigmoid'"),
        (Around(lambda y: (y, y)), {}, "returns a tuple without named logits"),
        (Around(lambda y: y), {"classes": list("abcd")}, r"\(6, 3\).*4 class names"),
        (Around(lambda y: (100 * y).long()), {}, r"torch\.int64 of shape.*for each real logit"),
        (Around(lambda y: y > 0), {"outputs": "sigmoid"}, r"torch\.bool of shape"),
        (Around(lambda y: y.to(torch.complex64)), {}, r"torch\.complex64 of shape"),
        (Around(lambda y: y.to_sparse()), {}, r"torch\.float32 of shape"),
        (Around(lambda y: y[..., None].expand(-1, 3, 2)), {}, r"\(6, 3, 2\).*a classifier"),
        (Around(lambda y: y), {"outputs": "logits"}, "outputs is 'logits'; use one of softmax"),
        (nn.Linear(4, 3), {}, "raises RuntimeError for images of shape"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(model, options, text):
    with pytest.raises(ValueError, match=text):
        wrapped(model, **options)


@pytest.mark.parametrize(
    ("preprocess", "text"),
    [
        (lambda image: to_tensor(image)[:1], "gives 1 channels, but images are explained as RGB"),
        (lambda image: to_tensor(image).expand(5, 3, 8, 8), r"gave shape \(5, 3, 8, 8\)"),
        (lambda image: to_tensor(image).repeat(2, 1, 1), "gives 6 channels"),
        (lambda image: image, "gave Image"),
        (pil_to_tensor, r"\(3, 300, 400\) and \(3, 400, 300\).*same size"),
        (lambda image: 1 / 0, "small's test image.* failed with ZeroDivisionError"),
    ],
)
def test_preprocessing_that_gives_no_rgb_tensor_is_refused_when_wrapping(preprocess, text):
    with pytest.raises(ValueError, match=text):
        wrapped(preprocess=preprocess)


@pytest.mark.parametrize(
    "classes", [{"a", "b", "c"}, {1: "a", 2: "b", 3: "c"}, [("a", 1), "b", "c"], [None]]
)
def test_classes_without_an_order_or_names_are_refused(classes):
    with pytest.raises(ValueError, match="list of the class names, in the order"):
        wrapped(classes=classes)


def test_classes_by_index_are_put_in_order():
    assert wrapped(classes={2: "c", 0: "a", 1: "b"}).classes == ("a", "b", "c")


class Hidden(nn.Module):
    """Everything that a state dict does not show."""

    def __init__(self):
        super().__init__()
        self.body, self.scale, self.flip = small(), 1.0, False
        self.register_buffer("shift", torch.zeros(3), persistent=False)

    def forward(self, x):
        return self.body(x.flip(2) if self.flip else x) * self.scale + self.shift


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "scale", 1.05),
        lambda model: setattr(model, "flip", True),
        lambda model: model.shift.add_(0.05),
        lambda model: setattr(model, "forward", lambda x: model.body(x) * 0.9),
        lambda model: setattr(model.body[1], "forward", nn.functional.gelu),
    ],
)
def test_a_key_changes_with_all_that_changes_the_logits(change):
    """Otherwise the store returns what another network gave."""
    model = Hidden().eval()
    with torch.no_grad():
        model.body[4].weight.normal_(), model.body[0].weight.normal_()
    target = wrapped(model)
    before = target.key()
    assert target.key() == before
    change(model)
    assert target.key() != before


def test_a_key_changes_with_preprocessing_of_tall_images_alone():
    def other(image):
        return to_tensor(image.rotate(90)) if image.height > image.width else to_tensor(image)

    model = small()
    first, second = (wrapped(model, one).key()["preprocess"][1] for one in (to_tensor, other))
    assert first != second


class Squeezed:
    """Preprocessing with an attribute that its repr does not show."""

    def __init__(self, below=0, above=10_000):
        self.below, self.above = below, above

    def __call__(self, image):
        odd = min(image.size) < self.below or max(image.size) > self.above
        return to_tensor(image.resize((4, 4)) if odd else image)


@pytest.mark.parametrize("other", [{"below": 40}, {"above": 1000}])
def test_a_key_changes_with_preprocessing_of_small_or_large_images_alone(other):
    model = small()
    first, second = (wrapped(model, Squeezed(**how)).key() for how in ({}, other))
    assert first["outputs"] == second["outputs"] and first != second


def test_a_key_changes_with_a_limit_that_the_fixed_images_hardly_reach():
    """As the threshold of ReAct, a plain attribute."""
    model = small()
    with torch.no_grad():
        model[4].weight.normal_()
    target, x = wrapped(model), targets.examine.fixed_batch(to_tensor, "small")
    highest = model[:4](x).max().item()
    keys = []
    for limit in (1.1 * highest, 1.2 * highest):
        model[3].forward = lambda a, limit=limit: a.flatten(1).clamp(max=limit)
        keys.append(target.key()["outputs"])
    assert keys[0] != keys[1]


@pytest.mark.parametrize("body", [nn.BatchNorm2d(3, track_running_stats=False), nn.Identity()])
def test_networks_that_depend_on_the_batch_or_on_chance_are_refused(body):
    model = nn.Sequential(body, small())
    model.forward = lambda x: model[1](
        nn.functional.dropout(body(x), 0.5, isinstance(body, nn.Identity))
    )
    with pytest.raises(ValueError, match="depend on chance, or on the other images"):
        wrapped(model).key()


class Silent(nn.Sequential):
    """Methods that return nothing, as some projects override them."""

    def train(self, mode=True):
        super().train(mode)

    def to(self, *args, **kwargs):
        super().to(*args, **kwargs)


def test_methods_that_return_nothing_do_no_harm():
    target = wrapped(Silent(*small())).to("cpu")
    assert not target.model.training and target.model(torch.zeros(1, 3, 8, 8)).shape == (1, 3)


def test_torchscript_is_refused_and_a_compiled_network_is_the_original():
    for model in (torch.jit.script(small()), torch.jit.trace(small(), torch.ones(1, 3, 8, 8))):
        with pytest.raises(TypeError, match="small is TorchScript, without hooks; pass the module"):
            wrapped(model)
    model = small()
    assert wrapped(torch.compile(model, backend="eager")).model is model


def test_weights_that_are_quantised_or_sparse_are_part_of_the_key():
    digests = set()
    for value in (1.0, 2.0):
        weight = torch.full((3, 4), value)
        for other in (torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), weight.to_sparse()):
            model = small()
            model.register_buffer("unused", other)
            digests.add(wrapped(model).digest)
    assert len(digests) == 4


@pytest.mark.parametrize("model", [small().to("meta"), nn.Sequential(nn.LazyLinear(3))])
def test_parameters_without_values_are_refused(model):
    with pytest.raises(ValueError, match="has no values yet; load weights"):
        wrapped(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_another_precision_get_images_of_that_precision(dtype):
    target = wrapped(small().to(dtype))
    x = torch.stack([target.preprocess(Image.new("RGB", (9, 9), "red"))] * 2)
    with capture(target, ["0", "logits"]) as captured:
        target.model(x)
    assert captured["0"].raw.dtype == captured["logits"].raw.dtype == dtype


@pytest.mark.parametrize(
    ("pool", "prefix", "expected"), [("token", 1, True), ("avg", 1, False), ("avg", 5, False)]
)
def test_a_class_token_counts_only_if_the_head_reads_it(pool, prefix, expected):
    """With average pooling it has no gradient; its values are no activation of the network."""
    model = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=3,
        global_pool=pool, reg_tokens=prefix - 1,
    )  # fmt: skip
    nn.init.normal_(model.head.weight)
    target = wrapped(model, sized(32))
    assert (target.prefix_tokens, target.class_token) == (prefix, expected)
    x = torch.randn(2, 3, 32, 32)
    with capture(target, ["blocks.1"]) as captured:
        target.model(x)
    raw = captured["blocks.1"].raw
    z = raw[:, 0] if expected else raw[:, prefix:].mean(1)
    assert torch.allclose(captured["blocks.1"].z, z, atol=1e-6)


def test_weights_of_wrapped_networks_are_unwrapped(tmp_path):
    """torch.compile, Lightning, DataParallel and AveragedModel each add to the names."""
    state = models.resnet18(num_classes=3).state_dict()
    for prefix in ("_orig_mod.", "model.", "module._orig_mod.", "net.model."):
        wrapped_state = {f"{prefix}{key}": value for key, value in state.items()}
        if prefix.startswith("module"):
            wrapped_state["n_averaged"] = torch.tensor(3)
        if prefix == "model.":
            wrapped_state["criterion.weight"] = torch.ones(3)
        save_file(wrapped_state, tmp_path / "a.safetensors")
        target = targets.load(
            "torchvision/resnet18", tmp_path / "a.safetensors", classes=list("abc")
        )
        assert torch.equal(target.model.fc.weight, state["fc.weight"])


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("fc.weight", lambda v: v * torch.nan, "not finite"),
        ("bn1.running_var", lambda v: -v, "negative variances"),
        ("fc.weight", lambda v: v.to(torch.int8), "torch.int8, expected torch.float32"),
        ("fc.weight", lambda v: v.to(torch.complex64), "torch.complex64"),
        ("fc.weight", lambda v: v.double() + 1e300, "not finite as torch.float32"),
        ("fc.weight", lambda v: v.to_sparse(), "sparse_coo"),
        ("fc.weight", lambda v: v.to("meta"), "meta"),
        ("fc.weight", lambda v: (v * torch.nan).to(torch.float8_e4m3fn), "not finite"),
    ],
)
def test_weights_that_are_no_weights_are_refused(tmp_path, name, change, text):
    state = models.resnet18(num_classes=3).state_dict()
    torch.save({**state, name: change(state[name])}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"'{name}'.*{text}|{text}.*'{name}'"):
        targets.load("torchvision/resnet18", tmp_path / "a.pth", classes=list("abc"))


@pytest.mark.parametrize("entry", ["net", "model_state_dict", "params"])
def test_the_only_state_dict_of_a_checkpoint_is_taken(tmp_path, entry):
    state = models.resnet18(num_classes=3).state_dict()
    torch.save({entry: state, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    target = targets.load("torchvision/resnet18", tmp_path / "a.pth", classes=list("abc"))
    assert torch.equal(target.model.fc.weight, state["fc.weight"])


def test_of_two_networks_in_a_checkpoint_none_is_taken(tmp_path):
    state = models.resnet18(num_classes=3).state_dict()
    both = {f"{prefix}.{key}": v for prefix in ("student", "teacher") for key, v in state.items()}
    for content, text in (
        ({"student": state, "teacher": state}, r"no single state dict.*\['student', 'teacher'\]"),
        (both, "below student, teacher, do not fit"),
    ):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=text):
            targets.load("torchvision/resnet18", tmp_path / "a.pth", classes=list("abc"))


def test_weights_whose_names_are_numbers_are_refused(tmp_path):
    torch.save({0: torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="names with a tensor each"):
        targets.load("torchvision/resnet18", tmp_path / "a.pth")


def test_loading_takes_the_geometry_of_wrap():
    target = targets.load("timm/test_vit", "random", layouts={"head": "BN"})
    assert target.layouts == {"head": "BN"}
    assert targets.load("timm/mixer_s32_224", "random").grid == (7, 7)
    assert targets.load("timm/lambda_resnet26t", "random").grid is None, "weights of five axes"


@pytest.mark.parametrize(
    "normalise",
    [
        lambda x: (x - x.mean()) / (x.std() + 1e-6),
        lambda x: (x - x.amin()) / (x.amax() - x.amin() + 1e-6),
        lambda x: x / (x.amax() + 1e-6),
        lambda x: (x - x.mean()) / x.std(),
        lambda x: x[[2, 1, 0]] * 255 - torch.tensor([104.0, 117.0, 123.0])[:, None, None],
        lambda x: torch.einsum("ij,jhw->ihw", YCBCR, x),
        lambda x: torch.einsum("ij,jhw->ihw", torch.eye(3) + 0.2, x),
        lambda x: x * 0,
        v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]),
    ],
)
def test_the_picture_is_that_of_the_network_for_any_normalisation(normalise):
    """Never a black one, nor one with other colours."""
    target = wrapped(preprocess=lambda image: normalise(to_tensor(image, 32)))
    photo = fixed_images()[0]
    shown = targets.denormalize(target, photo, target.preprocess(photo))
    expected = pil_to_tensor(photo.resize((32, 32))).double()
    assert (pil_to_tensor(shown).double() - expected).abs().mean() < 3


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_picture_is_cropped_as_that_of_the_network(power):
    """Maps over the whole picture would be out of place."""
    crop = v2.Compose([v2.Resize(64), v2.CenterCrop(40)])
    photo = fixed_images()[0]

    def preprocess(image):
        x = (pil_to_tensor(crop(image)) / 255) ** power
        return (x - x.mean()) / x.std()

    target = wrapped(preprocess=preprocess)
    shown = pil_to_tensor(targets.denormalize(target, photo, preprocess(photo))).double()
    both = torch.stack([shown.flatten(), pil_to_tensor(crop(photo)).double().flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.97


def test_pixels_that_are_whole_numbers_and_preprocessing_in_place():
    def preprocess(image):
        image.paste((0, 0, 0), (0, 0, image.width // 2, image.height))
        return pil_to_tensor(image.resize((16, 16)))

    before = fixed_images()[0].tobytes()
    target, x = wrapped(preprocess=preprocess), preprocess(fixed_images()[1].copy())[None]
    assert fixed_images()[0].tobytes() == before, "other networks are examined with it, too"
    w = contributions.contribute(target, x, "1", linear=False, signed=True).w
    assert torch.allclose(w, contributions.ablation(target, x, "1", signed=True), rtol=1e-3)


def test_networks_of_the_hub_are_looked_for_there(monkeypatch):
    """They used to be refused as models that timm does not have."""
    asked = []

    def create(name, pretrained=False, **options):
        asked.append((name, pretrained))
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(
        FileNotFoundError, match=r"timm/hf-hub:org/net\.in1k could not be downloaded"
    ):
        targets.load("timm/hf-hub:org/net.in1k")
    assert asked == [("hf-hub:org/net.in1k", True)]


# A network of one's own --------------------------------------------------------------------------

OWN_FILE = """
import torch
from torch import nn
from torchvision.transforms.functional import pil_to_tensor
from wwwlib import targets

def prepare(image):
    return pil_to_tensor(image.resize((16, 16))).float() / 255

def network():
    torch.manual_seed({seed})
    parts = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    return nn.Sequential(*parts)

def whole():
    return network(), prepare, ["cat", "dog"]

def target():
    return targets.wrap(network(), prepare, ["cat", "dog"], "mine")
"""


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(OWN_FILE.format(seed=1))
    return path


@pytest.mark.parametrize("function", ["whole", "target"])
def test_a_function_of_ones_own_gives_a_target_with_weights_from_a_file(own_file, function):
    name = f"{own_file}:{function}"
    found = targets.load(name)
    assert found.classes == ("cat", "dog") and found.name == name
    torch.manual_seed(7)
    other = {n: torch.randn_like(t) for n, t in found.network.state_dict().items()}
    save_file(other, own_file.with_suffix(".safetensors"))
    filled = targets.load(name, own_file.with_suffix(".safetensors"))
    assert torch.equal(filled.network[0].weight, other["0.weight"])
    assert filled.digest != found.digest
    assert targets.load(name, classes=["a", "b"]).classes == ("a", "b")


@pytest.mark.parametrize(
    "function, error, message",
    [
        ("network", ValueError, "pass preprocess= and classes="),
        ("nothing", AttributeError, "no function 'nothing'; check the network"),
        ("no function", ValueError, "write module:function or file.py:function"),
    ],
)
def test_a_function_that_gives_too_little_is_refused(own_file, function, error, message):
    with pytest.raises(error, match=message):
        targets.load(f"{own_file}:{function}")
    with pytest.raises(FileNotFoundError, match="no file"):
        targets.load("nowhere.py:network")
