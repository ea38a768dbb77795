"""Probe sets: the images shown to a network, where they come from, and what they are.

An `ImageSet` is a fixed, ordered list of images with a fingerprint of its content. It comes from
a folder, a data set in its published layout, the concept world, or crops of another set, and is
the only thing that later rooms know about files. Whatever cannot be decoded is found when the
set is opened, not an hour into a pass.
"""

from wwwlib.images.apart import check_apart, distinct, halves
from wwwlib.images.batches import batches
from wwwlib.images.broden import broden
from wwwlib.images.datasets import imagenet, imagenet_synsets, imagenette, places365
from wwwlib.images.decode import MAX_PIXELS, decode
from wwwlib.images.device_decode import DECODERS, check_decoder
from wwwlib.images.fitting import Fitting
from wwwlib.images.folder import folder
from wwwlib.images.image_set import FIVE_CROPS, ImageSet, Skipped, crops, subset
from wwwlib.images.load import FOLDERS, load

__all__ = [
    "DECODERS",
    "FIVE_CROPS",
    "FOLDERS",
    "MAX_PIXELS",
    "Fitting",
    "ImageSet",
    "Skipped",
    "batches",
    "broden",
    "check_apart",
    "check_decoder",
    "crops",
    "decode",
    "distinct",
    "folder",
    "halves",
    "imagenet",
    "imagenet_synsets",
    "imagenette",
    "load",
    "places365",
    "subset",
]
