"""The atlas of a network: everything that does not depend on the image, computed once.

`build` names the neurons of a network and computes their class contributions; `Atlas.explain` then
explains any image and its class: what, where and why (WWW, Figure 2).
"""

from wwwlib.atlas.atlas import Atlas, LayerRecord, Thumbnails
from wwwlib.atlas.build import build, class_contributions, head_class_contributions
from wwwlib.atlas.explain import Explanation, Neuron, Track
from wwwlib.images import match_labels
