"""One pass over a probe set keeps, for every neuron, the K images that excite it most.

The pass streams: memory depends on neurons and K, never on the number of images, and the result is
that of sorting everything at once, whatever the batch size, the worker count or the number of
interruptions, and however many processes share it by `shards`. `stream` is the engine, `collect`
the question that the rest of the house asks.
"""

from wwwlib.exemplars.collecting import collect
from wwwlib.exemplars.record import CONSTANT, NOT_FINITE, OK, Exemplars
from wwwlib.exemplars.streaming import stream

__all__ = ["CONSTANT", "NOT_FINITE", "OK", "Exemplars", "collect", "stream"]
