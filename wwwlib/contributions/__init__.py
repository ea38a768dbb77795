"""WHY a class: how far its logit would fall if a neuron fell silent.

``w_i(x) = |f_c(x) - f_c(x; a_i <- 0)|`` (WWW, Eq. 3), in three ways. `ablation` does it, one
forward pass per neuron. `taylor` takes the first-order term, the sum over all positions of
a_i * d f_c / d a_i, for all neurons and all images of a batch in one backward pass. `linear_head`
is W[c] * z: where pooling and one linear layer follow, all three are equal, and the signed values
plus the bias sum to the logit. `contribute` takes the last where `head` proves it exact, else the
second. `shapley` is the yardstick beyond Eq. 3: who adds how much, whoever else may speak.
"""

from wwwlib.contributions.ablations import ablation, masked_forward
from wwwlib.contributions.first_order import Contributions, contribute, contribute_all, taylor
from wwwlib.contributions.heads import head, linear_head
from wwwlib.contributions.shapley import Agreement, agreement, shapley

__all__ = [
    "Agreement",
    "Contributions",
    "ablation",
    "agreement",
    "contribute",
    "contribute_all",
    "head",
    "linear_head",
    "masked_forward",
    "shapley",
    "taylor",
]
