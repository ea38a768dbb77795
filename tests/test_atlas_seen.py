"""Which part of an image a network sees, against what its preprocessing does by hand."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from wwwlib import targets
from wwwlib.atlas import cut_to, seen_part


@pytest.mark.parametrize("size", [(224, 224), (500, 375), (256, 341), (640, 96)])
def test_the_part_that_a_network_sees_is_that_of_its_resize_and_crop(size):
    """By hand: the short side becomes 256 pixels, and 224 of each side are kept."""
    look = v2.Compose([v2.PILToTensor(), v2.Resize(256), v2.CenterCrop(224),
                       v2.ToDtype(torch.float32, scale=True)])  # fmt: skip
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 224**2, 2))
    found = seen_part(targets.wrap(model, look, ("a", "b"), "crop"), size)
    for side, (start, stop) in zip(size, (found[::2], found[1::2]), strict=True):
        length = int(side * 256 / min(size))
        assert start == pytest.approx(round((length - 224) / 2) / length, abs=0.003)
        assert stop - start == pytest.approx(224 / length, abs=0.005)


def test_an_array_is_cut_to_a_part_and_never_to_nothing():
    mask = np.arange(20).reshape(4, 5)
    assert cut_to(mask, (0.2, 0.25, 0.6, 1.0)).tolist() == [[6, 7], [11, 12], [16, 17]]
    assert cut_to(mask, (0.0, 0.0, 1.0, 1.0)).tolist() == mask.tolist()
    assert cut_to(mask, (0.99, 0.99, 1.0, 1.0)).tolist() == [[19]]
