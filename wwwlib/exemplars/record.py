"""What an exemplar pass hands on: the most exciting images of every neuron of one layer."""

from dataclasses import dataclass

from torch import Tensor

OK, CONSTANT, NOT_FINITE = 0, 1, 2


@dataclass(frozen=True)
class Exemplars:
    """The most exciting probe images of every neuron of a layer (D_rep in the paper).

    Attributes
    ----------
    index : Tensor of int64, shape (N, K)
        Image indices, best first; equal values stand in the order of their indices. -1 where a
        neuron had no finite activation left.
    value : Tensor of float32, shape (N, K)
        Their neuron activations z; -inf beside an index of -1.
    status : Tensor of int8, shape (N,)
        `OK`, `CONSTANT` (the same value on every image: nothing excites it) or `NOT_FINITE`
        (fewer than K finite values).
    class_sum, class_abs : Tensor of float64, shape (C, N)
        Sums of z and of |z| over the images of each class.
    class_count : Tensor of int64, shape (C,)
        Images of each class: by label where an image has one of the network's, else by prediction.
    images : int
        Number of images in the probe set.
    """

    index: Tensor
    value: Tensor
    status: Tensor
    class_sum: Tensor
    class_abs: Tensor
    class_count: Tensor
    images: int
