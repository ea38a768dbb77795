"""The names of many tracks are those of one explanation after the other."""

import pytest
import torch

from wwwlib import atlas, language, targets, world
from wwwlib.studies.many import named_tracks


class Colours:
    """An encoder that sees nothing but the mean colour, and reads letters as if it could."""

    name, dim = "colours", 3

    def preprocess(self, image):
        pixels = torch.frombuffer(bytearray(image.resize((8, 8)).tobytes()), dtype=torch.uint8)
        return pixels.view(8, 8, 3).permute(2, 0, 1) / 255

    def encode_images(self, x):
        return torch.nn.functional.normalize(x.mean((2, 3)), dim=1)

    def encode_texts(self, texts):
        rows = [[sum(map(ord, text)) % prime for prime in (7, 11, 13)] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows).float() + 1, dim=1)


@pytest.mark.parametrize("layer", ["layer4", "layer3"])
def test_names_equal_those_of_explain(layer):
    """Breaks if neurons are chosen or ordered in another way, or a batch mixes its images."""
    torch.manual_seed(0)
    target = targets.load("world/conv", "random")
    probe, asked = world.image_set(48, 3), world.image_set(7, 4)
    words = language.ConceptSet(world.SEEN[:40])
    book = atlas.build(target, probe, Colours(), words, [layer], k=2, progress=False)
    record = book.layer(layer)
    found = named_tracks(
        target, asked, layer, record.major.names, record.class_w, top=3, batch_size=3
    )
    for i in range(len(asked)):
        one = book.explain(asked.image(i), top=3)
        assert found.predicted[i] == one.predicted
        assert found.sample[i] == [name for n in one.sample.neurons for name in n.names]
        assert found.cls[i] == [name for n in one.cls.neurons for name in n.names]
    assert any(found.sample)


def test_a_class_without_images_is_refused():
    target = targets.load("world/conv", "random")
    unknown = torch.full((len(target.classes), 128), torch.nan)
    with pytest.raises(ValueError, match="without finite contributions"):
        named_tracks(target, world.image_set(2, 4), "layer4", [["a"]] * 128, unknown)
