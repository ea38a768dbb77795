"""MILAN: neurons described in a few words, from the parts of images that excite them.

A neuron's 15 exemplars are cut down to where it exceeds its .99 quantile, an encoder's features
are pooled there, and an attentive decoder says what it sees; of what it might say, that is chosen
which is said of this neuron rather than of any. `load` the describer that was trained on the
concept world, `describe` a layer from any exemplars (`collect` ranks them as MILAN does), and read
the `words` of a concept set out of the descriptions.
For networks on ImageNet there are the authors' labels (`baselines.published.milan`), and their own
package, which `original` calls.

Hernandez, Schwettmann, Bau, Bagashvili, Torralba and Andreas, "Natural Language Descriptions of
Deep Visual Features", ICLR 2022.
"""

from wwwlib.baselines.milan import original
from wwwlib.baselines.milan.describer import Describer, load, save
from wwwlib.baselines.milan.naming import Candidates, candidates, describe
from wwwlib.baselines.milan.ranking import collect
from wwwlib.baselines.milan.reading import words

__all__ = [
    "Candidates",
    "Describer",
    "candidates",
    "collect",
    "describe",
    "load",
    "original",
    "save",
    "words",
]
