"""Three ways to the same number, each against a slower one: gradients, real ablation, W[c] * z."""

from dataclasses import replace

import pytest
import timm
import torch
from captum.attr import LayerGradientXActivation, ShapleyValueSampling
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import targets
from wwwlib.activations import capture
from wwwlib.contributions import (
    ablation,
    contribute,
    contribute_all,
    head,
    linear_head,
    masked_forward,
    taylor,
)


def preprocess(size):
    return lambda image: pil_to_tensor(image.resize((size, size))).double() / 255


def wrapped(model, classes=5, size=32):
    names = list(map(str, range(classes)))
    return targets.wrap(model.double(), preprocess(size), names, "test")


def resnet():
    return wrapped(models.resnet18(num_classes=5))


def small_resnet():
    return wrapped(models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5))


def vit():
    model = models.VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # zeros at first, and zeros explain nothing
    return wrapped(model)


def registers():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5,
                              reg_tokens=4)  # fmt: skip
    nn.init.normal_(model.head.weight)
    return wrapped(model)


def swin():
    model = models.SwinTransformer([4, 4], 12, [1, 1], [2, 4], [4, 4], num_classes=5)
    return wrapped(model, size=32)


def plain(*behind, channels=6):
    return wrapped(nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), *behind), size=8)


def images(target, count=2):
    size = target.preprocess(Image.new("RGB", (4, 4))).shape[-1]
    return torch.randn(count, 3, size, size, dtype=torch.float64)


def axis_of(a, neurons):
    return 1 if a.ndim == 2 or (a.ndim == 4 and a.shape[1] == neurons) else -1


def changed(target, x, layer, neuron, factor, neurons):
    """Return the logits of one image with one neuron multiplied, by a hook of its own."""

    def hook(_, __, output):
        output = output.clone()
        output.movedim(axis_of(output, neurons), 0)[neuron] *= factor
        return output

    handle = target.model.get_submodule(layer).register_forward_hook(hook)
    with torch.no_grad():
        logits = target.model(x[None])[0]
    handle.remove()
    return logits


HIDDEN = [
    (small_resnet, "layer2", 128),
    (small_resnet, "layer3.0.bn1", 256),
    (vit, "encoder.layers.encoder_layer_0", 24),
    (vit, "encoder.layers.encoder_layer_1.mlp.0", 48),
    (registers, "blocks.0", 192),
    (swin, "features.1", 12),
]
hidden = pytest.mark.parametrize(
    ("make", "layer", "neurons"), HIDDEN, ids=lambda it: getattr(it, "__name__", str(it))
)


# First order --------------------------------------------------------------------------------


@hidden
def test_taylor_is_the_slope_of_the_logit_as_a_neuron_fades(make, layer, neurons):
    """d f_c(x; a_i * u) / du at u = 1, by central differences, an image and a neuron at a time.

    Breaks if images of a batch mix, a class is another image's, or a token is left out.
    """
    target = make()
    x, classes, step = images(target), torch.tensor([3, 1]), 1e-5
    w = taylor(target, x, layer, classes, signed=True)
    assert w.shape == (2, neurons)
    for b in range(2):
        for i in range(0, neurons, neurons // 4):
            more = changed(target, x[b], layer, i, 1 + step, neurons)[classes[b]]
            less = changed(target, x[b], layer, i, 1 - step, neurons)[classes[b]]
            assert w[b, i] == pytest.approx((more - less).item() / (2 * step), abs=1e-7)


@hidden
def test_taylor_equals_captum(make, layer, neurons):
    target = make()
    x, classes = images(target, 3), torch.tensor([0, 4, 2])
    module = target.model.get_submodule(layer)
    theirs = LayerGradientXActivation(target.model, module).attribute(x, classes)
    theirs = theirs.movedim(axis_of(theirs, neurons), 1).flatten(2).sum(2)
    assert theirs.abs().max() > 1e-4
    torch.testing.assert_close(taylor(target, x, layer, classes, signed=True), theirs.detach())
    torch.testing.assert_close(taylor(target, x, layer, classes), theirs.detach().abs())


@hidden
def test_maps_are_activation_times_gradient_at_each_position(make, layer, neurons):
    """Oracle: autograd's own gradient of the output, put on the grid by hand."""
    target, kept = make(), []

    def keep(_, __, output):
        output.retain_grad()
        kept.append(output)

    x = images(target)
    found = contribute(target, x, layer, torch.tensor([3, 1]), linear=False).maps
    handle = target.model.get_submodule(layer).register_forward_hook(keep)
    logits = target.model(x)
    handle.remove()
    (logits[0, 3] + logits[1, 1]).backward()
    expected = (kept[0] * kept[0].grad).detach()
    assert expected.abs().max() > 1e-6
    if expected.ndim == 3:
        expected = expected[:, {"vit": 1, "registers": 5}[make.__name__] :]
        side = round(expected.shape[1] ** 0.5)
        expected = expected.unflatten(1, (side, side))
    if axis_of(expected, neurons) == -1:
        expected = expected.permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected)


def test_the_predicted_class_is_the_default():
    target = small_resnet()
    x = images(target, 4)
    predicted = target.model(x).argmax(1)
    for classes in (predicted, predicted.int()):
        w = taylor(target, x, "layer3", classes)
        torch.testing.assert_close(taylor(target, x, "layer3"), w)
    assert torch.equal(taylor(target, x, "layer3", 2), taylor(target, x, "layer3", [2] * 4))


def test_several_layers_in_one_pass_equal_one_at_a_time():
    target = small_resnet()
    x, layers = images(target), ["layer1", "layer3", "layer4", "logits"]
    together = contribute_all(target, x, layers, 1, signed=True)
    assert list(together) == layers
    assert [together[layer].exact for layer in layers] == [False, False, True, True]
    for layer in layers:
        torch.testing.assert_close(together[layer].w, taylor(target, x, layer, 1, signed=True))


@pytest.mark.parametrize("around", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("trainable", [True, False])
def test_nothing_is_left_behind_whatever_the_caller_does(around, trainable):
    """Gradients on weights or images, hooks, a changed mode or changed weights would stay."""
    target = small_resnet()
    target.model.requires_grad_(trainable)
    expected = taylor(target, x := images(target), "layer2", torch.tensor([1, 2]))
    before = {name: value.clone() for name, value in target.model.state_dict().items()}
    with around():
        there = x.clone()  # an inference tensor in inference mode, and so are the classes
        found = contribute(target, there, "layer2", torch.tensor([1, 2]))
        ablation(target, there, "layer2", neurons=[3])
        head(target, "layer4")
    assert torch.equal(found.w, expected)
    assert not any(t.requires_grad for t in (found.w, found.logits, found.activations.raw))
    assert all(p.grad is None and p.requires_grad == trainable for p in target.model.parameters())
    assert x.grad is None and not x.requires_grad and not target.model.training
    assert not any(module._forward_hooks for module in target.model.modules())
    after = target.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_layer_off_the_path_to_the_logits_contributes_nothing():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(192, 5), nn.Linear(192, 7)

        def forward(self, x):
            self.idle(x.flatten(1))
            return self.used(x.flatten(1))

    target = wrapped(Branch(), size=8)
    with torch.no_grad():  # whole numbers: their sums are exact in whatever order a processor adds
        target.model.used.weight.mul_(100).round_()
        target.model.used.bias.zero_()
    x = images(target).mul(100).round()
    assert torch.equal(taylor(target, x, "idle"), torch.zeros(2, 7, dtype=torch.float64))
    assert torch.equal(ablation(target, x, "idle"), torch.zeros(2, 7, dtype=torch.float64))


class Cut(nn.Module):
    """A layer that autograd does not reach adds a share of the logits to class 0 alone."""

    def __init__(self, size, share):
        super().__init__()
        self.used, self.cut = nn.Linear(192, 5), nn.Linear(192, 5)
        for one in (self.used, self.cut):
            nn.init.zeros_(one.weight)
            nn.init.zeros_(one.bias)
        nn.init.constant_(self.used.bias, size)
        self.cut.bias.data[0] = size * share

    def forward(self, x):
        return self.used(x.flatten(1)) + self.cut(x.flatten(1)).detach()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_layer_whose_gradient_is_cut_is_refused_if_it_changes_the_logit(size, sign):
    """By more than a millionth of the largest logit; less is rounding."""
    target = wrapped(Cut(size, sign * 2e-6), size=8)
    x = images(target)
    with pytest.raises(ValueError, match=r"No gradient passes through 'cut' .*use ablation"):
        contribute_all(target, x, ["used", "cut"], torch.tensor([1, 0]), linear={"used": False})
    assert not taylor(target, x, "cut", 1).any(), "it changes another class"
    target = wrapped(Cut(size, sign * 5e-7), size=8)
    assert not taylor(target, x, "cut", 0).any()


class InPlace(nn.Module):
    """What the gradient of the sigmoid needs is overwritten, or its gradient breaks otherwise."""

    def __init__(self, message=None):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)
        self.message = message

    def forward(self, x):
        a = self.a(x).sigmoid()
        if not self.message:
            a.mul_(2)
        elif a.requires_grad:
            a.register_hook(self.broken)
        return self.b(a).mean((2, 3))

    def broken(self, gradient):
        raise RuntimeError(self.message)


def test_a_network_that_overwrites_its_gradient_points_to_ablation():
    target = wrapped(InPlace(), size=8)
    layers = {"a": False, "b": False}
    with pytest.raises(ValueError, match=r"through 'a' or 'b', since the .* in place .*abla"):
        contribute_all(target, images(target), layers, 1, linear=layers)
    target = wrapped(InPlace("out of memory"), size=8)
    with pytest.raises(RuntimeError, match="out of memory"):
        taylor(target, images(target), "a", 1)


# Ablation -----------------------------------------------------------------------------------


@hidden
def test_ablation_equals_one_image_and_one_neuron_at_a_time(make, layer, neurons):
    target = make()
    x, classes, some = images(target, 3), torch.tensor([0, 4, 2]), [neurons - 1, 0, 5]
    w = ablation(target, x, layer, classes, neurons=some, signed=True, batch_size=7)
    for b, c in enumerate(classes):
        with torch.no_grad():
            full = target.model(x[b : b + 1])[0, c]
        for column, i in enumerate(some):
            expected = full - changed(target, x[b], layer, i, 0.0, neurons)[c]
            assert w[b, column] == pytest.approx(expected.item(), abs=1e-9)
    absolute = ablation(target, x, layer, classes, neurons=torch.tensor(some))
    torch.testing.assert_close(absolute, w.abs())


def test_ablation_runs_no_more_images_at_once_than_asked():
    target = plain(nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 5))
    sizes = []
    target.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    assert ablation(target, images(target, 2), "0", batch_size=5).shape == (2, 6)
    assert sizes == [2, 2, 4, 4, 4]
    for least in (1, 2, 3):
        sizes.clear()
        assert ablation(target, images(target, 2), "0", batch_size=least).shape == (2, 6)
        assert sizes == [2] * 8, "an image with one neuron left out is the least"


def test_ablation_runs_64_images_at_once_by_default():
    target = plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(70, 5), channels=70)
    sizes = []
    target.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    assert ablation(target, images(target, 1), "0").shape == (1, 70)
    assert sizes == [1, 1, 64, 6]


@hidden
def test_masked_neurons_are_set_to_their_fill(make, layer, neurons):
    """An image at a time, each neuron by a hook of its own: row j belongs to image j mod B."""
    target = make()
    x, classes = images(target), torch.tensor([3, 1])
    for fill in (torch.randn(neurons, dtype=torch.float64), torch.full((neurons,), 0.5)):
        mask = torch.rand(4, neurons) < 0.7
        logit = masked_forward(target, x, layer, classes, 0.5 if fill[0] == 0.5 else fill)
        for j, value in enumerate(logit(mask)):

            def hook(_, __, output, row=mask[j], fill=fill):
                output = output.clone()
                by_neuron = output.movedim(axis_of(output, neurons), 0)
                for i in range(neurons):
                    if not row[i]:
                        by_neuron[i] = fill[i]
                return output

            handle = target.model.get_submodule(layer).register_forward_hook(hook)
            with torch.no_grad():
                expected = target.model(x[j % 2 : j % 2 + 1])[0, classes[j % 2]]
            handle.remove()
            assert value.item() == pytest.approx(expected.item(), abs=1e-9)


def test_a_neuron_that_is_nan_can_be_set_to_zero():
    """Multiplying with zero would leave nan."""
    target = plain(nn.Flatten(), nn.Linear(6 * 64, 5))
    with torch.no_grad():
        target.model[0].bias[2] = torch.nan
    logit = masked_forward(target, images(target, 1), "0", 1)
    mask = torch.ones(1, 6)
    assert logit(mask).isnan()
    mask[0, 2] = 0
    assert logit(mask).isfinite()


def test_not_finite_activations_show():
    """A nan that became a zero would pass for a neuron without influence."""
    target = plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    with torch.no_grad():
        target.model[0].bias[2] = torch.nan
    x = images(target)
    for w in (taylor(target, x, "0", 1), contribute(target, x, "0", 1).w):
        assert w[:, 2].isnan().all() and w[:, [0, 1, 3, 4, 5]].isfinite().all()


# Linear heads -------------------------------------------------------------------------------


def assert_all_agree(target, layer, x, classes, some):
    """All three ways agree, and the signed values plus the bias sum to the logit."""
    weight, bias = head(target, layer)
    with torch.no_grad(), capture(target, [layer, "logits"]) as taken:
        logits = target.model(x)
    exact = linear_head(taken[layer].z, weight, classes, signed=True)
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(taylor(target, x, layer, classes, signed=True), exact, **close)
    real = ablation(target, x, layer, classes, neurons=some, signed=True)
    torch.testing.assert_close(real, exact[:, some], **close)
    expected = torch.stack([logits[b, c] for b, c in enumerate(classes)])
    torch.testing.assert_close(exact.sum(1) + bias[classes], expected, **close)
    found = contribute(target, x, layer, classes)
    assert found.exact and torch.equal(found.w, exact.abs())
    assert torch.equal(found.classes, classes) and torch.equal(found.logits, logits)
    assert torch.equal(found.activations.z, taken[layer].z)


def test_on_a_linear_head_all_three_agree():
    target = resnet()
    x = images(target, 2)
    assert_all_agree(target, "layer4", x, torch.tensor([4, 1]), list(range(0, 512, 32)))


@pytest.mark.real
def test_on_a_real_linear_head_all_three_agree(real_weights):
    """EfficientNet's last activation stands inside its last normalisation, bn2."""
    file = real_weights / "efficientnet_lite0.safetensors"
    target = targets.load("timm/tf_efficientnet_lite0", weights=file)
    target.model.double()
    target = replace(target, preprocess=preprocess(64))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    classes = torch.stack([target.model(x).argmax(1)[0], torch.tensor(7)])
    assert_all_agree(target, "bn2", x, classes, list(range(0, 1280, 160)))
    assert head(target, "conv_head") is None, "a normalisation and a ReLU6 follow"


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (resnet, "layer4"),
        (small_resnet, "avgpool"),
        (small_resnet, "fc"),
        (small_resnet, "logits"),
        (vit, "encoder.ln"),
        (registers, "norm"),
        (swin, "norm"),
        (lambda: plain(nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "0"),
        (lambda: plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5, bias=False)), "0"),
    ],
)
def test_a_linear_head_is_found(make, layer):
    target = make()
    assert_all_agree(target, layer, images(target), torch.tensor([4, 1]), [4, 0, 2])


@pytest.mark.parametrize("classes", [2, torch.tensor([3, 0, 3])])
def test_linear_head_equals_the_products_one_by_one(classes):
    z, weight = torch.randn(3, 4), torch.randn(5, 4)
    own = [2, 2, 2] if isinstance(classes, int) else classes.tolist()
    signed = torch.tensor([[weight[own[b], i] * z[b, i] for i in range(4)] for b in range(3)])
    assert torch.equal(linear_head(z, weight, classes, signed=True), signed)
    assert torch.equal(linear_head(z, weight, classes), signed.abs())


class Off(nn.Module):
    """A linear head without a bias, off by a share of the size of its terms."""

    def __init__(self, share, scale):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 1), nn.Linear(6, 5, bias=False)
        self.fc.weight.data *= scale
        self.share = share

    def forward(self, x):
        z = self.conv(x).mean((2, 3))
        return self.fc(z) + self.share * z.abs() @ self.fc.weight.abs().T


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_head_is_linear_up_to_rounding(scale, dtype):
    """Half of the digits have to agree, whatever the unit of the logits."""
    x = torch.randn(2, 3, 8, 8, dtype=dtype)
    for factor in (0, 0.9, -0.9, 1.1, -1.1):
        target = wrapped(Off(factor * torch.finfo(dtype).eps ** 0.5, scale), size=8)
        target.model.to(dtype)
        assert (head(target, "conv", x) is None) == (abs(factor) > 1)


def test_images_without_any_activation_are_no_evidence_against_a_head():
    """Both sides are exactly zero, and so is what rounding may be."""
    target = wrapped(Off(0, 1.0), size=8)
    nn.init.zeros_(target.model.get_submodule("conv").weight)
    nn.init.zeros_(target.model.get_submodule("conv").bias)
    assert head(target, "conv") is not None


def test_a_head_is_sought_with_eight_of_the_images():
    target = plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    sizes = []
    target.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    assert head(target, "0", images(target, 9)) and sizes == [8, 8, 8]


class Skip(nn.Module):
    """The image goes around the layer, too."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 1), nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3))) + x.mean()


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (small_resnet, "layer3"),
        (small_resnet, "layer4.0.bn2"),
        (vit, "encoder.layers.encoder_layer_1"),
        (swin, "features.3"),
        (lambda: wrapped(Skip(), size=8), "conv"),
        (lambda: plain(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)), "0"),
        (lambda: plain(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 5)), "0"),
        (lambda: plain(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), channels=5), "0"),
        (lambda: plain(nn.Flatten(), nn.Linear(6 * 64, 5)), "0"),
    ],
)
def test_what_is_no_linear_head_is_not_taken_for_one(make, layer):
    """Shapes fit in most of them: an exactness that is only assumed would show nowhere else."""
    target = make()
    assert head(target, layer) is None
    assert not contribute(target, images(target), layer).exact


@pytest.mark.parametrize("name", ["conv", "vit"])
def test_the_worlds_networks_in_single_precision(name):
    target = targets.load(f"world/{name}", "random")
    if name == "vit":
        assert head(target, "encoder.ln") is None, "its head starts as zeros, which prove nothing"
        nn.init.normal_(target.model.heads.head.weight)
    last = {"conv": "layer4", "vit": "encoder.ln"}[name]
    weight, bias = head(target, last)
    assert weight.dtype == torch.float32 and len(weight) == len(bias) == len(target.classes)
    assert head(target, {"conv": "layer3", "vit": "encoder.layers.encoder_layer_2"}[name]) is None


def test_a_head_found_earlier_spares_its_forward_passes():
    target = small_resnet()
    x, linear, calls = images(target), head(target, "layer4"), []
    target.model.register_forward_pre_hook(lambda *_: calls.append(1))
    given = contribute(target, x, "layer4", linear=linear)
    assert given.exact and len(calls) == 1
    assert not contribute(target, x, "layer4", linear=False).exact and len(calls) == 2
    assert torch.equal(contribute(target, x, "layer4").w, given.w) and len(calls) == 6


def test_logits_contribute_only_to_themselves():
    target = small_resnet()
    x = images(target, 2)
    expected = torch.zeros(2, 5, dtype=torch.float64)
    expected[:, 3] = target.model(x)[:, 3].detach()
    for way in (taylor, ablation):
        torch.testing.assert_close(way(target, x, "logits", 3, signed=True), expected)


# Shapley ------------------------------------------------------------------------------------


def test_sampled_shapley_values_of_a_linear_head_are_its_contributions():
    """The game adds up neuron by neuron, so every order of entry gives the same value."""
    target = plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    x, classes = images(target), torch.tensor([4, 1])
    logit = masked_forward(target, x, "0", classes)
    method = ShapleyValueSampling(logit)
    values = method.attribute(torch.ones(2, 6), n_samples=2, perturbations_per_eval=3)
    expected = taylor(target, x, "0", classes, signed=True)
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=1e-6)  # single in captum


# What goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "word"),
    [
        (5, "classes 0 to 4"),
        (torch.tensor([0, -1]), "without a label"),
        (torch.tensor([0, 1, 2]), "each of the 2 images"),
        (torch.tensor([0.0, 1.0]), "float32"),
        (True, "bool"),
    ],
)
def test_wrong_classes(classes, word):
    """-1, the mark of a missing label, would quietly mean the last class."""
    target = plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    for way in (contribute, taylor, ablation):
        with pytest.raises(ValueError, match=word):
            way(target, images(target), "0", classes)
    with pytest.raises(ValueError, match=word):
        linear_head(torch.zeros(2, 6), torch.zeros(5, 6), classes)


@pytest.mark.parametrize("count", [4, 5])
def test_the_classes_that_exist_are_named(count):
    z, weight = torch.zeros(2, 6), torch.zeros(count, 6)
    assert linear_head(z, weight, torch.tensor([0, count - 1])).shape == (2, 6)
    with pytest.raises(ValueError, match=f"contains 1 to {count}, .* 0 to {count - 1};"):
        linear_head(z, weight, torch.tensor([count, 1]))


def test_contributions_of_a_linear_head_have_no_maps():
    target = plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    x = images(target)
    with pytest.raises(ValueError, match="pass linear=False"):
        _ = contribute(target, x, "0").maps
    assert contribute(target, x, "0", linear=False).maps.shape[:2] == (2, 6)


def test_other_mistakes_are_sentences():
    target = plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    x = images(target)
    with pytest.raises(ValueError, match=r"has \[6, -1\]; give some of 0 to 5"):
        ablation(target, x, "0", neurons=[0, 6, -1])
    with pytest.raises(ValueError, match=r"has \[7\]; give some of 0 to 5"):
        ablation(target, x, "0", neurons=[7])
    with pytest.raises(ValueError, match=r"neurons has \[\]; give some of 0 to 5"):
        ablation(target, x, "0", neurons=[])
    with pytest.raises(ValueError, match="a column for each neuron of '0'"):
        masked_forward(target, x, "0")(torch.ones(3, 6))
    for shape in [(12,), (2, 5), (2, 7), (2, 6, 1)]:
        with pytest.raises(ValueError, match=r"expected \(R \* 2, 6\)"):
            masked_forward(target, x, "0")(torch.ones(shape))
    for z, weight in [((2, 6), (5, 7)), ((2, 6), (5, 5)), ((2, 6), (6,)), ((6,), (5, 6)),
                      ((2, 6, 1), (5, 6)), ((2, 6), (5, 6, 1))]:  # fmt: skip
        with pytest.raises(ValueError, match="do not match"):
            linear_head(torch.zeros(z), torch.zeros(weight), 0)
    for wrong in (x[0], x[None], x[:0]):
        with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\)"):
            taylor(target, wrong, "0")
    with pytest.raises(ValueError, match="not finite; pass classes="):
        taylor(target, x * torch.nan, "0")
    half = x.clone()
    half[1] = torch.nan
    with pytest.raises(ValueError, match="image 1 are not finite; pass classes="):
        taylor(target, half, "0")
    target.model.train()
    with pytest.raises(ValueError, match="training mode"):
        taylor(target, x, "0")


def test_a_network_that_detaches_points_to_ablation():
    class Detached(nn.Sequential):
        def forward(self, x):
            return super().forward(x).detach()

    target = wrapped(Detached(nn.Flatten(), nn.Linear(192, 5)), size=8)
    with pytest.raises(ValueError, match="use ablation"):
        taylor(target, images(target), "1")


class Clipped(nn.Module):
    """Large activations are limited, as ReAct and LINe do against unlike input."""

    def __init__(self, limit):
        super().__init__()
        self.body, self.head, self.limit = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), limit
        nn.init.constant_(self.body.bias, limit)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)).clamp(max=self.limit))


@pytest.mark.parametrize("limit", [0.8, 1.37, 4.0])
def test_a_limit_to_activations_is_no_linear_head(limit):
    """Noise of unit size stays below it, and real activations do not: W z is then no ablation."""
    target = wrapped(Clipped(limit))
    assert head(target, "body") is None
    assert not contribute(target, images(target), "body", 0).exact


class Floored(Clipped):
    """Negative activations are limited, far below those of the images."""

    def __init__(self, limit, share):
        super().__init__(limit)
        nn.init.zeros_(self.body.weight)
        nn.init.constant_(self.body.bias, -limit * share)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)).clamp(min=-self.limit))


@pytest.mark.parametrize("limit", [0.01, 1.0, 100.0])
def test_a_limit_below_four_times_the_activations_is_no_linear_head(limit):
    """Larger activations count, in their own unit and with their own sign."""
    for share in (0.27, 0.6, 0.99):
        assert head(wrapped(Floored(limit, share)), "body") is None
