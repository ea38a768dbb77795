"""Captured layers equal those of a hand-written hook, and unreadable outputs are errors."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import contributions, targets
from wwwlib.activations import capture


def wrapped(model, size=8, classes=5, **options):
    rows, columns = (size, size) if isinstance(size, int) else size

    def to_tensor(image):
        return pil_to_tensor(image.resize((columns, rows))) / 255

    return targets.wrap(model, to_tensor, list(map(str, range(classes))), "test", **options)


def by_hand(model, layer, x):
    """Return a layer's output, copied in the hook before anything can overwrite it."""
    kept = []
    module = model.get_submodule(layer)
    handle = module.register_forward_hook(lambda _, __, output: kept.append(output.clone()))
    with torch.no_grad():
        logits = model(x)
    handle.remove()
    assert len(kept) == 1
    return kept[0], logits


def to_grid(tokens, prefix, h, w):
    """(B,T,N) -> (B,N,h,w), one number at a time."""
    a = torch.empty(len(tokens), tokens.shape[2], h, w)
    for row in range(h):
        for column in range(w):
            a[:, :, row, column] = tokens[:, prefix + row * w + column]
    return a


def mean_over_cells(a):
    total = sum(a[:, :, i, j] for i in range(a.shape[2]) for j in range(a.shape[3]))
    return total / (a.shape[2] * a.shape[3])


def resnet18():
    return models.resnet18(num_classes=5), "layer2", 64, "BNHW", 0


def resnet50():
    return models.resnet50(num_classes=5), "layer4", 64, "BNHW", 0


def resnet_before_an_inplace_relu():
    return models.resnet18(num_classes=5), "layer3.0.bn1", 64, "BNHW", 0


def convnext():
    stages = [CNBlockConfig(24, 48, 1), CNBlockConfig(48, None, 1)]
    return models.ConvNeXt(stages, num_classes=5), "features.3", 64, "BNHW", 0


def convnext_inside_a_block():
    """It works channels last inside, and channels first outside."""
    return convnext()[0], "features.3.0.block.3", 64, "BHWN", 0


def swin():
    model = models.SwinTransformer([4, 4], 12, [1, 1], [2, 4], [4, 4], num_classes=5)
    return model, "features.3", 64, "BHWN", 0


def swin_patches():
    return swin()[0], "features.0.0", 64, "BNHW", 0


def timm_swin():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), num_heads=(2, 4), embed_dim=24,
        num_classes=5,
    )  # fmt: skip
    return model, "layers.1", 56, "BHWN", 0


def torchvision_vit():
    model = models.VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=5)
    return model, "encoder.layers.encoder_layer_1", 32, "BTN", 1


def torchvision_vit_mlp():
    model = models.VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=5)
    return model, "encoder.layers.encoder_layer_0.mlp.0", 32, "BTN", 1


def torchvision_vit_patches():
    return models.VisionTransformer(32, 8, 1, 2, 24, 48, num_classes=5), "conv_proj", 32, "BNHW", 0


def timm_vit():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5)
    return model, "blocks.3", 64, "BTN", 1


def timm_vit_before_the_class_token():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5)
    return model, "patch_embed", 64, "BTN", 0


def timm_vit_with_registers():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5, reg_tokens=4)
    return model, "blocks.11.mlp.fc1", 64, "BTN", 5


def efficientnet():
    return timm.create_model("tf_efficientnet_lite0", num_classes=5), "blocks.3", 64, "BNHW", 0


def world_conv():
    return targets.load("world/conv", "random").model, "layer1", 64, "BNHW", 0


def world_vit_stem():
    model = targets.load("world/vit", "random").model
    return model, "conv_proj.conv_bn_relu_0", 64, "BNHW", 0


def plain():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6 * 256, 5)
    )
    return model, "0", 16, "BNHW", 0


NETWORKS = [
    resnet18, resnet50, resnet_before_an_inplace_relu, convnext, convnext_inside_a_block, swin,
    swin_patches, timm_swin, torchvision_vit, torchvision_vit_mlp, torchvision_vit_patches,
    timm_vit, timm_vit_before_the_class_token, timm_vit_with_registers, efficientnet, world_conv,
    world_vit_stem, plain,
]  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_maps_and_z_equal_a_hook_and_a_loop(network):
    """World's first layer, 32 channels of 32 x 32, fits either way round and must be channels."""
    model, layer, size, layout, prefix = network()
    x = torch.randn(2, 3, size, size)
    expected, logits = by_hand(model.eval(), layer, x)
    target = wrapped(model, size, classes=logits.shape[1])
    with capture(target, [layer, "logits"]) as captured, torch.no_grad():
        answer = target.model(x)
    found = captured[layer]
    assert (found.layout, found.prefix) == (layout, prefix)
    assert torch.equal(found.raw, expected), "changed in place, or copied too late"
    if layout == "BTN":
        side = round((expected.shape[1] - prefix) ** 0.5)
        a = to_grid(expected, prefix, side, side)
    else:
        a = expected if layout == "BNHW" else torch.stack(expected.unbind(3), 1)
    z = expected[:, 0] if prefix else mean_over_cells(a)
    assert torch.equal(found.maps, a)
    assert torch.allclose(found.z, z, atol=1e-5)
    assert found.neurons == a.shape[1] == found.z.shape[1]
    assert torch.equal(answer, logits) and torch.equal(captured["logits"].z, logits)
    assert captured["logits"].maps.shape == (*logits.shape, 1, 1)
    assert not any(module._forward_hooks for module in model.modules()), "hooks stayed behind"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("torchvision/resnet50", "layer4", (2048, 7, 7)),
        ("torchvision/convnext_tiny", "features.7", (768, 7, 7)),
        ("torchvision/vit_b_16", "encoder.layers.encoder_layer_11", (768, 14, 14)),
        ("torchvision/swin_t", "features.7", (768, 7, 7)),
        ("timm/vit_base_patch16_224", "blocks.11", (768, 14, 14)),
        ("timm/tf_efficientnet_lite0", "conv_head", (1280, 7, 7)),
    ],
)
def test_common_networks(name, layer, shape):
    target = targets.load(name, "random")
    with torch.no_grad(), capture(target, [layer, "logits"]) as captured:
        target.model(torch.randn(1, 3, 224, 224))
    assert captured[layer].maps.shape == (1, *shape)
    assert captured["logits"].neurons == 1000


def test_cubes_inside_a_channels_last_network_follow_the_module():
    """(B, 8, 8, 8) fits either way: linear layers and layer norms work channels last."""
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, embed_dim=8, depths=(1,), num_heads=(2,),
        window_size=4, num_classes=5,
    )  # fmt: skip
    target = wrapped(model, 32)
    with capture(target, ["layers.0", "norm"]) as captured:
        target.model(torch.randn(2, 3, 32, 32))
    assert [captured[layer].layout for layer in ("layers.0", "norm")] == ["BHWN", "BHWN"]
    assert captured["norm"].raw.shape == (2, 8, 8, 8)


def test_maps_of_wide_images_are_recognised_by_their_proportions():
    """48 channels on 48 x 64 cells would pass for channels last, were maps taken to be square."""
    model = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    target = wrapped(model, (48, 64), classes=48)
    with capture(target, ["0"]) as captured:
        target.model(torch.randn(2, 3, 48, 64))
    assert captured["0"].layout == "BNHW" and captured["0"].maps.shape == (2, 48, 48, 64)


class Tokens(nn.Module):
    """A transformer that does not describe its tokens: 3 x 5 patches after a class token."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.block = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.block(torch.cat([x.mean(1, keepdim=True), x], 1))
        return self.head(x[:, 0])


def test_tokens_on_other_grids_follow_the_given_grid():
    x = torch.randn(2, 3, 12, 20)
    target = wrapped(Tokens(), (12, 20), prefix_tokens=1, grid=(3, 5))
    with capture(target, ["block"]) as captured, torch.no_grad():
        target.model(x)
    expected, _ = by_hand(target.model, "block", x)
    assert torch.equal(captured["block"].maps, to_grid(expected, 1, 3, 5))
    assert torch.equal(captured["block"].z, expected[:, 0])


@pytest.mark.parametrize(
    ("size", "options", "text"),
    [
        ((12, 20), {}, r"\(2, 16, 8\).*prefix_tokens=1, grid=\(3, 5\)\.$"),
        ((16, 16), {}, r"\(2, 17, 8\).*prefix_tokens=1, grid=\(4, 4\)"),
        (
            (12, 16),
            {"prefix_tokens": 2},
            r"13 - 2 patch tokens fit no input \(12, 16\); pass grid=",
        ),
        ((12, 20), {"prefix_tokens": 1, "grid": (3, 4)}, r"the grid \(3, 4\) make 13"),
        ((12, 20), {"layouts": {"block": "BNHW"}}, "which is not BNHW"),
    ],
)
def test_tokens_on_unknown_grids_name_the_argument_to_pass(size, options, text):
    target = wrapped(Tokens(), size, **options)
    with pytest.raises(ValueError, match=text), capture(target, ["block"]):
        target.model(torch.randn(2, 3, *size))


def test_without_a_grid_patches_have_the_proportions_of_the_input():
    """Sixteen patches of a wide picture on a square grid would be a scrambled picture."""
    target, x = wrapped(Tokens(), (8, 32), prefix_tokens=1), torch.randn(2, 3, 8, 32)
    with capture(target, ["block"]) as captured:
        target.model(x)
    assert captured["block"].grid == (2, 8)


@pytest.mark.parametrize("size", [(112, 448), (128, 288), (448, 112), (224, 224)])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "xcit_nano_12_p16_224"])
def test_transformers_that_take_any_size_get_the_grid_of_their_input(name, size):
    """7 x 28 patches are as many as 14 x 14, the grid of the published size."""
    more = {"depth": 1, "dynamic_img_size": True} if name.startswith("vit") else {"depth": 1}
    target = wrapped(timm.create_model(name, num_classes=5, **more).eval(), size)
    x = torch.zeros(2, 3, *size)
    x[1, :, : size[0] // 4, -(size[1] // 4) :] = torch.randn(3, size[0] // 4, size[1] // 4)
    with capture(target, ["blocks.0"]) as captured, torch.no_grad():
        target.model(x)
    a = captured["blocks.0"].maps
    changed = (a[0] - a[1]).abs().sum(0)
    rows, columns = changed.shape
    assert (rows, columns) == (size[0] // 16, size[1] // 16)
    assert changed[: rows // 2, columns // 2 :].sum() > 0.5 * changed.sum()


def test_a_square_grid_needs_no_grid():
    target = wrapped(Tokens(), 16, prefix_tokens=1)
    with capture(target, ["block"]) as captured:
        target.model(torch.randn(2, 3, 16, 16))
    assert captured["block"].grid == (4, 4)


def test_registers_without_class_token_are_averaged_over_patches():
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, num_classes=5, reg_tokens=4, class_token=False,
        global_pool="avg",
    )  # fmt: skip
    target = wrapped(model, 64)
    with capture(target, ["blocks.2"]) as captured:
        target.model(torch.randn(2, 3, 64, 64))
    found = captured["blocks.2"]
    assert found.prefix == 4 and torch.allclose(found.z, found.raw[:, 4:].mean(1), atol=1e-6)


class Two(nn.Module):
    def forward(self, x):
        return x, x


class Odd(nn.Module):
    """Layers whose outputs cannot be read, or are easily misread."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 5, 1)
        self.shared = nn.ReLU()
        self.unused = nn.ReLU()
        self.pair = nn.LSTM(4, 5, batch_first=True)
        self.scalar, self.windows, self.five, self.uneven = (nn.Identity() for _ in range(4))
        self.two = Two()

    def forward(self, x):
        a = self.shared(self.shared(self.body(x)))
        self.pair(a[:, 0])
        self.two(a)
        self.scalar(a.sum())
        self.windows(a.flatten(0, 1))
        self.five(a[:, None])
        self.uneven(a[:, :4, :3, :2])
        return a.mean((2, 3))


@pytest.mark.parametrize(
    ("layer", "error", "text"),
    [
        ("shared", RuntimeError, "'shared' of test was called 2 times.*several places share it"),
        ("unused", RuntimeError, "'unused' of test was called 0 times.*fused path"),
        ("pair", ValueError, "no layer 'pair'"),
        ("two", ValueError, "'two' of test returns a tuple, not one tensor"),
        ("scalar", ValueError, r"shape \(\), whose first axis is not the batch of 2"),
        ("windows", ValueError, r"shape \(10, 4, 4\), whose first axis is not the batch of 2"),
        ("five", ValueError, r"shape \(2, 1, 5, 4, 4\), which is not BN, BTN, BNHW or BHWN"),
        (
            "uneven",
            ValueError,
            r"shape \(2, 4, 3, 2\).*proportions of the input \(4, 4\).*layouts=",
        ),
        ("bodi", ValueError, "no layer 'bodi'; the nearest are 'body'"),
    ],
)
def test_layers_that_cannot_be_read_are_errors_with_a_reason(layer, error, text):
    target = wrapped(Odd(), 4)
    with pytest.raises(error, match=text), capture(target, [layer]):
        target.model(torch.randn(2, 3, 4, 4))
    assert not any(module._forward_hooks for module in target.model.modules())


def test_layouts_decide_what_shapes_do_not():
    target = wrapped(Odd(), 4, layouts={"uneven": "BNHW"})
    with capture(target, "uneven") as captured:
        target.model(torch.randn(2, 3, 4, 4))
    assert captured["uneven"].maps.shape == (2, 4, 3, 2)


def test_attention_heads_are_not_taken_for_maps():
    """(B, heads, T, d) has four axes, but none of them is a row of the image."""
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5)
    target = wrapped(model, 64)
    heads = pytest.raises(ValueError, match="inside attention heads; choose the block")
    with heads, capture(target, ["blocks.0.attn.q_norm"]):
        target.model(torch.randn(2, 3, 64, 64))


def test_activation_functions_in_a_sequence_are_arranged_like_the_layer_before_them():
    """Here every axis has one size, which is that of the patches too: shapes decide nothing."""

    class Ambiguous(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
            self.last = nn.Sequential(nn.Linear(4, 4), nn.GELU())
            self.head = nn.Linear(4, 5)

        def forward(self, x):
            return self.head(self.last(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))

    def layouts(target, *layers):
        with capture(target, layers) as captured:
            target.model(torch.randn(2, 3, 4, 4))
        return [captured[layer].layout for layer in layers]

    tokens = wrapped(Ambiguous(), 4, prefix_tokens=0, grid=(2, 2))
    assert layouts(tokens, "stem.1", "stem.2") == ["BNHW"] * 2
    assert layouts(wrapped(Ambiguous(), 4), "last.0", "last.1") == ["BHWN"] * 2


def test_the_fast_path_of_attention_is_noticed():
    """In evaluation mode PyTorch's encoder layer computes its parts without calling them."""

    class Fast(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x):
            return self.layer(x.flatten(2)[..., :8])[:, 0, :5]

    target = wrapped(Fast(), 4, prefix_tokens=0, grid=(1, 3))
    never = pytest.raises(RuntimeError, match="called 0 times")
    with never, torch.no_grad(), capture(target, ["layer.self_attn.out_proj"]):
        target.model(torch.randn(2, 3, 4, 4))


def test_class_names_and_logits_must_be_equally_many():
    with pytest.raises(ValueError, match=r"\(6, 5\) for 6 images, but there are 4 class names"):
        wrapped(Odd(), 4, classes=4)


def test_exactly_one_forward_pass_is_allowed():
    target = wrapped(Odd(), 4)
    x = torch.randn(2, 3, 4, 4)
    early = pytest.raises(RuntimeError, match="'body' is not captured yet")
    with early, capture(target, ["body"]) as captured:
        captured["body"]
    twice = pytest.raises(RuntimeError, match="called 2 times: call target")
    with twice, capture(target, ["body"]):
        target.model(x)
        target.model(x)
    around = pytest.raises(RuntimeError, match=r"call target\.model\(x\)")
    with around, capture(target, ["body"]):
        target.model.forward(x)
    with pytest.raises(ZeroDivisionError), capture(target, ["body"]):
        1 / 0  # noqa: B018
    with capture(target, ["body", "body"]) as captured:
        target.model(x)
    assert list(captured) == ["body"] and len(captured) == 1 and "unused" not in captured


def test_gradients_flow_to_raw_and_through_it():
    """Without this, contributions would be zero; the linear head gives the expected value."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 5),
    ).double()  # fmt: skip
    target = wrapped(model)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    with capture(target, ["0", "1"]) as captured:
        logits = target.model(x)
    before, after = torch.autograd.grad(
        logits[:, 3].sum(), [captured["0"].raw, captured["1"].raw], retain_graph=True
    )
    weight = model[4].weight[3].detach() / 36
    expected = weight[None, :, None, None].expand(2, 6, 6, 6)
    assert torch.allclose(after, expected)
    assert torch.allclose(before, expected * (captured["0"].raw > 0))
    assert torch.autograd.grad(logits.sum(), x)[0].abs().sum() > 0


def test_gradients_are_arranged_like_maps():
    model, layer, size, *_ = torchvision_vit()
    target = wrapped(model, size)
    with capture(target, [layer]) as captured:
        logits = target.model(torch.randn(2, 3, size, size))
    found = captured[layer]
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), found.raw)
    assert found.to_maps(gradient).shape == found.maps.shape == (2, 24, 4, 4)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_too(context):
    target = wrapped(plain()[0], 16)
    with context(), capture(target, ["0", "logits"]) as captured:
        target.model(torch.randn(2, 3, 16, 16))
    assert captured["0"].raw.min() < 0, "the in-place ReLU reached what was captured"
    assert repr(captured["logits"]) == "Activations('logits': BN (2, 5))"


class InPlace(nn.Module):
    """It works on its input itself, as detectors and hand-written networks do."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)

    def forward(self, x):
        x.sub_(0.3).relu_()
        x[:, 0] = 0.5
        return self.head(self.body(x).mean((2, 3)))


def test_networks_that_work_in_place_leave_the_batch_unchanged():
    """Ablation and Taylor run the network again with the same batch."""
    target, x = wrapped(InPlace(), 16), torch.randn(3, 3, 16, 16)
    before = x.clone()
    w = contributions.taylor(target, x, "body", classes=2)
    assert torch.allclose(w, contributions.ablation(target, x, "body", classes=2), atol=1e-6)
    assert torch.equal(x, before) and w.any()


class Parts(nn.Module):
    """A network with a part behind a detached output, and a part that nothing reads."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.aside = (nn.Conv2d(n, 4, 1) for n in (3, 4, 4))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.first(x)
        self.aside(x)
        return self.head(self.second(x.detach()).sigmoid().mean((2, 3)))


def test_a_detached_output_has_no_gradient_of_zero():
    """It reaches the logits: contributions of zero would be wrong, unlike those of `aside`."""
    target, x = wrapped(Parts(), 8), torch.randn(2, 3, 8, 8)
    assert contributions.ablation(target, x, "first").any()
    with pytest.raises(ValueError, match="passes through 'first' \\(detached\\); use ablation"):
        contributions.taylor(target, x, "first")
    assert not contributions.taylor(target, x, "aside").any()
    assert contributions.taylor(target, x, "second").any()


def test_networks_whose_gradient_they_overwrite_themselves_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Hardtanh(inplace=True))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    target = wrapped(nn.Sequential(model, head), 8)
    with pytest.raises(ValueError, match=r"'0\.0', since the network changes in place"):
        contributions.taylor(target, torch.randn(2, 3, 8, 8), "0.0")


def test_convolutions_in_other_proportions_name_the_argument_to_pass():
    model = nn.Sequential(nn.Conv2d(3, 6, (1, 9)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    refused = pytest.raises(ValueError, match=r"pass layouts=\{'0': 'BNHW'\} if its positions")
    target, x = wrapped(model, 32, classes=6), torch.randn(2, 3, 32, 32)
    with refused, capture(target, ["0"]):
        target.model(x)
    target = wrapped(model, 32, classes=6, layouts={"0": "BNHW"})
    with capture(target, ["0"]) as captured:
        target.model(x)
    assert captured["0"].maps.shape == (2, 6, 32, 24)


@pytest.mark.parametrize("stride", [(2, 4), (4, 1), (1, 3)])
@pytest.mark.parametrize("layer", ["0", "2", "3"])
def test_convolutions_are_channels_first_whatever_the_shape(stride, layer):
    """(B, 32, 32, 16) has the proportions of the input in its first axes, too."""
    block = nn.Sequential(nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32))
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride, 1), nn.BatchNorm2d(32), nn.ReLU(), block,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    target = wrapped(model, 64)
    with capture(target, [layer]) as captured:
        target.model(torch.randn(2, 3, 64, 64))
    assert captured[layer].layout == "BNHW" and captured[layer].neurons == 32


def test_tokens_in_another_order_than_the_patches_are_refused():
    """Hiera's tokens follow its windows: on a grid they would be a scrambled picture."""
    model = timm.create_model("hiera_tiny_224", img_size=64, num_classes=5)
    refused = pytest.raises(ValueError, match="not in the order of the patches")
    target = wrapped(nn.Sequential(model), 64, prefix_tokens=0, grid=(16, 16))
    with refused, capture(target, ["0.blocks.0"]):
        target.model(torch.randn(2, 3, 64, 64))
    target = wrapped(model, 64)
    with refused, capture(target, ["blocks.0"]):
        target.model(torch.randn(2, 3, 64, 64))


def test_two_threads_capture_one_after_the_other():
    """Hooks are on the network itself: those of two threads would count each other's calls."""
    target, x = wrapped(resnet18()[0], 64), torch.randn(1, 3, 64, 64)
    expected = contributions.taylor(target, x, "layer2")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: contributions.taylor(target, x, "layer2"), range(12)))
    assert all(torch.equal(one, expected) for one in found)
