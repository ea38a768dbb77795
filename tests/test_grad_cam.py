"""Grad-CAM against captum, and against the class activation map."""

import pytest
import torch

from wwwlib import maps, targets
from wwwlib.baselines.grad_cam import grad_cam


@pytest.fixture(scope="module")
def conv():
    torch.manual_seed(0)
    return targets.load("world/conv", "random")


def test_grad_cam_equals_captums(conv):
    captum = pytest.importorskip("captum.attr")
    x, classes = torch.randn(3, 3, 64, 64), torch.tensor([0, 5, 23])
    for layer in ("layer2", "layer4"):
        theirs = captum.LayerGradCam(conv.model, conv.module(layer)).attribute(
            x, target=classes, relu_attributions=True
        )
        ours = grad_cam(conv, x, layer, classes)
        assert ours.shape == theirs[:, 0].shape
        assert torch.allclose(ours, theirs[:, 0], rtol=1e-4, atol=1e-7)


def test_grad_cam_before_a_linear_head_is_the_class_activation_map(conv):
    """There the gradient is W[c] over the number of cells (Zhou et al., 2016)."""
    x = torch.randn(2, 3, 64, 64)
    found = grad_cam(conv, x, "layer4")
    a = conv.model[:4](x).detach()
    classes = conv.model(x).argmax(1)
    cam = torch.einsum("bi,bihw->bhw", conv.model.fc.weight[classes].detach(), a).clamp(min=0)
    assert torch.allclose(found, cam / a[0, 0].numel(), rtol=1e-4, atol=1e-7)


def test_grad_cam_reads_tokens_on_their_grid_and_leaves_gradients_alone():
    """Breaks if the class token were averaged with the patches, which captum's would do."""
    torch.manual_seed(0)
    vit = targets.load("world/vit", "random")
    layer = next(name for name in vit.layers() if name.endswith("encoder_layer_1"))
    x = torch.randn(2, 3, 64, 64)
    assert grad_cam(vit, x, layer).shape == (2, 8, 8)
    assert all(weight.grad is None for weight in vit.model.parameters())
    assert maps.resize(grad_cam(vit, x, layer)[:, None], 64).shape == (2, 1, 64, 64)
