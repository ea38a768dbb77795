"""The networks under study: torchvision's, timm's, the world's, or any `nn.Module`.

A `Target` is a classifier with all that its explanation depends on: preprocessing, class names,
layer names, how its tokens lie on the image, and the digest of its weights. `load` builds one by
name, `wrap` makes one of a network that you bring.
"""

from wwwlib.targets.library import load
from wwwlib.targets.target import LAYOUTS, LOGITS, Target, wrap
from wwwlib.targets.weights import read_weights

__all__ = ["LAYOUTS", "LOGITS", "Target", "load", "read_weights", "wrap"]
