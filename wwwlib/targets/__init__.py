"""Networks to be explained: torchvision's, timm's, an extension's, or any `nn.Module`.

A `Target` is a classifier with everything that its explanation depends on: preprocessing, class
names, layer names, the layout of its tokens, and the digest of its weights. `load` builds one by
name, `wrap` from a model.
"""

from wwwlib.targets.directions import Dictionary, with_directions
from wwwlib.targets.library import Published, from_module, load, read_weights, recognize
from wwwlib.targets.target import LAYOUTS, LOGITS, Target, denormalize, wrap
