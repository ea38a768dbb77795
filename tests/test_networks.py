"""One network of every family of timm and torchvision: read rightly, or refused with a reason.

Weights are random, since only layouts and derivatives are examined. Where a part of the picture is
changed, the blocks of a network must change most in the cells of that part; the derivative behind a
contribution must equal a difference quotient; a linear head must equal ablation.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from wwwlib import targets
from wwwlib.activations import read
from wwwlib.contributions import ablation, contribute, forward, replaced_output
from wwwlib.maps import last_spatial_layer
from wwwlib.targets.examine import fixed_batch

TIMM = """
beit_base_patch16_224 botnet26t_256 caformer_s18 cait_xxs24_224 coat_lite_mini coatnet_pico_rw_224
convformer_s18 convit_tiny convmixer_768_32 convnext_atto cs3darknet_s davit_tiny
deit_tiny_distilled_patch16_224 densenet121 dla46_c dpn48b edgenext_xx_small efficientformer_l1
efficientformerv2_s0 efficientnet_lite0 efficientvit_b0 efficientvit_m0 ese_vovnet19b_slim
eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny gernet_s ghostnet_050
gmlp_ti16_224 halonet26t hgnetv2_b0 hrnet_w18_small inception_next_atto lambda_resnet26t
legacy_seresnet18 maxvit_pico_rw_256 mixer_s32_224 mobilenetv3_small_050 mobilevit_xxs
mobilevitv2_050 mvitv2_tiny nest_tiny nf_regnet_b0 pit_ti_224 poolformer_s12 pvt_v2_b0 regnetx_002
repghostnet_050 repvit_m0_9 resmlp_12_224 resnest14d rexnet_100 shvit_s1 skresnet18 starnet_s050
swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_ns_224 swinv2_tiny_window8_256 test_vit
test_vit3 tiny_vit_5m_224 twins_svt_small vit_relpos_small_patch16_224 visformer_tiny
vitamin_small_224 volo_d1_224 xcit_nano_12_p16_224
""".split()  # noqa: SIM905
TORCHVISION = """
alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t mnasnet0_5
mobilenet_v2 regnet_y_400mf resnet18 shufflenet_v2_x0_5 squeezenet1_1 swin_t swin_v2_t vgg11
vit_b_32
""".split()  # noqa: SIM905
# What refuses, and the reason in its message. Everything else must be read.
REFUSED = {
    "timm/hiera_tiny_224": "not in the order of the patches",
}
NAMES = [f"timm/{name}" for name in TIMM] + [f"torchvision/{name}" for name in TORCHVISION]


def network(name):
    torch.manual_seed(0)
    target = targets.load(name, "random", classes=[f"class {i}" for i in range(7)])
    for module in target.model.modules():  # zeros at first, and zeros explain nothing
        if isinstance(module, nn.Linear) and module.out_features == 7:
            nn.init.normal_(module.weight, std=0.1)
    for parameter, value in target.model.named_parameters():
        if "gamma" in parameter or "layer_scale" in parameter:  # 1e-6 at first: hardly any effect
            nn.init.uniform_(value, 0.5, 1.5)
    return targets.wrap(target.model.double(), target.preprocess, target.classes, name)


def blocks(target):
    """Return the parts of sequences and lists: residual streams, not the inside of attention.

    All convolutions, too.
    """
    found, convolutions = [], []
    for name in target.layers()[:-1]:
        around, module = target.network.get_submodule(name.rpartition(".")[0]), target.module(name)
        if "attn" in name:
            continue
        if isinstance(around, nn.Sequential | nn.ModuleList) and [*module.children()]:
            found.append(name)
        if isinstance(module, nn.Conv2d):
            convolutions.append(name)
    return [*found, *convolutions]


def outputs(target, x, names):
    """Return the outputs of layers that are called once, by hooks of their own."""
    found = {name: [] for name in names}
    hooks = [
        target.module(name).register_forward_hook(lambda _, __, y, name=name: found[name].append(y))
        for name in names
    ]
    with torch.no_grad():
        target.model(x.clone())
    for hook in hooks:
        hook.remove()
    return {name: ys[0] for name, ys in found.items() if len(ys) == 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_corner_of_the_picture_is_that_corner_of_the_maps(name):
    target = network(name)
    x = fixed_batch(target.preprocess, name)[:1].double()
    rows, columns = (side // 8 for side in x.shape[2:])
    before, checked = outputs(target, x, blocks(target)), 0
    for top, left in ((True, False), (False, True)):
        changed = x.clone()
        part = changed[:, :, slice(rows) if top else slice(-rows, None)]
        part[..., slice(columns) if left else slice(-columns, None)] += 2 * torch.randn(
            rows, columns
        )
        for layer, y in outputs(target, changed, before).items():
            module = target.module(layer)
            try:
                a, b = (
                    read(target, layer, module, one, x.shape).maps for one in (before[layer], y)
                )
            except ValueError:
                continue
            moved = (a - b).abs().sum(1)[0]
            h, w = moved.shape
            if min(h, w) > 2 and moved.any():
                halves = ((True, moved[: h // 2]), (False, moved[-(h // 2) :]))
                quarters = {(north, True): half[:, : w // 2].mean() for north, half in halves}
                quarters |= {(north, False): half[:, -(w // 2) :].mean() for north, half in halves}
                second, most = sorted(quarters.values())[-2:]
                if most < 1.25 * second:  # attention without training mixes all positions
                    continue
                assert max(quarters, key=quarters.get) == (top, left), layer
                checked += 1
    assert checked, "no block could be read"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_contributions_are_derivatives_and_before_a_linear_head_ablation(name, monkeypatch):
    """In float64, against central differences of the step whose error is smallest.

    A long step crosses kinks of ReLUs, a short one rounds where a layer has hardly any effect.
    Where every step rounds, the oracle is differentiation in forward mode.
    """
    single = torch.Tensor.float  # some networks compute their attention in it
    double = torch.float64
    monkeypatch.setattr(torch.Tensor, "float", lambda a: a if a.dtype == double else single(a))
    target = network(name)
    x = smaller(target, fixed_batch(target.preprocess, name)[:1].double())
    layer = last_spatial_layer(target)
    for at in dict.fromkeys((layer, blocks(target)[len(blocks(target)) // 2])):
        try:
            found = contribute(target, x, at, 3, signed=True)
        except (ValueError, RuntimeError) as error:
            assert at != layer and len(str(error)) < 400
            continue
        some = found.w.abs().sum(0).topk(3).indices
        steps, gaps = [partial(quotient, step=s) for s in (1e-5, 1e-6, 1e-7, 1e-3)], []
        for oracle in [removed] if found.exact else [*steps, forward_mode]:
            rows = [oracle(target, x, at, found, int(i)) for i in some]
            expected = torch.stack(rows, 1)
            gaps.append((found.w[:, some] - expected).abs().max())
            if gaps[-1] <= 1e-4 * found.w.abs().max():
                break
        assert min(gaps) <= 1e-4 * found.w.abs().max(), at


def smaller(target, x):
    """Return a part of the images where the network takes one, which is faster."""
    part = x[..., :96, :96]
    try:
        forward(target, part, [last_spatial_layer(target)])
    except (AssertionError, RuntimeError, ValueError):
        return x
    return part


def removed(target, x, layer, found, neuron):
    """Return the fall of the logit without the neuron."""
    return ablation(target, x, layer, 3, [neuron], signed=True)[:, 0]


def forward_mode(target, x, layer, found, neuron):
    """Return d f / d s as `quotient`, without differences that round."""
    axis = 1 if found.activations.layout in ("BNHW", "BN") else -1

    def dual(a):
        direction = torch.zeros_like(a)
        direction.select(axis, neuron).copy_(a.select(axis, neuron))
        return forward_ad.make_dual(a, direction)

    with torch.no_grad(), forward_ad.dual_level(), replaced_output(target, layer, dual):
        logits = forward(target, x, [])[0]
        return forward_ad.unpack_dual(logits).tangent[:, 3]


def quotient(target, x, layer, found, neuron, step):
    """Return d f / d s at s = 1 where the neuron's activations are multiplied by s."""
    axis = 1 if found.activations.layout in ("BNHW", "BN") else -1
    logits = []
    for factor in (1 + step, 1 - step):

        def scaled(a, factor=factor):
            a = a.clone()
            a.select(axis, neuron).mul_(factor)
            return a

        with torch.no_grad(), replaced_output(target, layer, scaled):
            logits.append(forward(target, x, [])[0][:, 3])
    return (logits[0] - logits[1]) / (2 * step)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_what_cannot_be_read_is_refused_with_a_reason(name, reason):
    target = network(name)
    x, messages = fixed_batch(target.preprocess, name).double(), []
    for layer in blocks(target):
        try:
            forward(target, x, [layer])
        except (ValueError, RuntimeError) as error:
            messages.append(str(error))
    with pytest.raises(ValueError, match=reason):
        last_spatial_layer(target)
        raise ValueError(" ".join(messages))
