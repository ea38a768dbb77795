"""Probe sets: ordered sets of images with labels and a fingerprint of their content.

An `ImageSet` comes from a folder, a published data set, a torch data set, an extension such as the
concept world, or as a subset or crops of another set. Images that cannot be decoded are detected
when the set is opened, before a long pass starts.
"""

from wwwlib.images.batches import DECODERS, Fitting, batches, preprocessed
from wwwlib.images.files import MAX_PIXELS, decode, folder
from wwwlib.images.image_set import FIVE_CROPS, ImageSet, Masks, check_apart, crops, halves, subset
from wwwlib.images.pixel_masks import masks
from wwwlib.images.sources import class_names, dataset, imagenet_synsets, load, match_labels
