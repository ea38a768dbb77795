"""What an explanation says about doubt that softmax does not.

Two doubts can be strong and say the same. So a logistic model of both is fitted on one half of the
images and tested on the other, against a model of the first alone: what is gained is what the
second adds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wwwlib.studies.reliability.levels import checked
from wwwlib.studies.reliability.rejection import auroc, compare


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted probability of error: sigmoid of a weighted sum of standardised features.

    Attributes
    ----------
    weight, bias : Tensor of float64, shapes (d,) and ()
        Of the standardised features.
    centre, scale : Tensor of float64, shape (d,)
        What the features were standardised with.
    """

    weight: Tensor
    bias: Tensor
    centre: Tensor
    scale: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return the log-odds of error (n,) of features (n, d)."""
        return (features.double() - self.centre) / self.scale @ self.weight + self.bias


@dataclass(frozen=True)
class Gain:
    """What a second doubt adds to a first, on images that neither model was fitted on.

    Attributes
    ----------
    alone, both : float
        AUROC of the two models on the tested half.
    difference : float
        `both` less `alone`.
    interval : (float, float)
        Of the difference, by paired bootstrap.
    weights : (float, float)
        Of the two standardised doubts in the model of both.
    errors : int
        Mispredictions in the tested half.
    """

    alone: float
    both: float
    difference: float
    interval: tuple[float, float]
    weights: tuple[float, float]
    errors: int


def fit_logistic(
    features: Tensor, wrong: Tensor, penalty: float = 1.0, steps: int = 50
) -> Logistic:
    """Fit a logistic regression by Newton's method.

    Parameters
    ----------
    features : Tensor
        (n, d) finite values; they are standardised.
    wrong : Tensor
        (n,) bool.
    penalty : float
        Half of it times the squared weights is added to the summed log-loss, so that separable
        data have a solution. The bias is free.
    steps : int
        The most Newton steps; a handful is the rule.

    Returns
    -------
    Logistic
    """
    x, y = features.double(), wrong.double()
    centre, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    x = torch.cat([(x - centre) / scale, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    ridge = torch.full((x.shape[1],), penalty, dtype=x.dtype)
    ridge[-1] = 0.0
    solution = x.new_zeros(x.shape[1])
    for _ in range(steps):
        p = (x @ solution).sigmoid()
        gradient = x.T @ (p - y) + ridge * solution
        curvature = (x * (p * (1 - p)).unsqueeze(1)).T @ x + ridge.diag()
        step = torch.linalg.lstsq(curvature, gradient.unsqueeze(1)).solution[:, 0]
        solution = solution - step
        if step.abs().max() < 1e-10:
            break
    return Logistic(solution[:-1], solution[-1], centre, scale)


def gain(
    doubt: Tensor,
    second: Tensor,
    wrong: Tensor,
    seed: int = 0,
    samples: int = 2000,
    level: float = 0.95,
) -> Gain:
    """Measure what a second doubt adds to a first one.

    Parameters
    ----------
    doubt, second : Tensor
        (n,) finite doubts of the same images. Give a probability of error as its log-odds.
    wrong : Tensor
        (n,) bool.
    seed : int
        Draws the halves, errors and successes apart, and the bootstrap.
    samples : int
        Bootstrap samples.
    level : float
        Coverage of the interval, in (0, 1). Who tries m doubts one after the other and asks which
        of them gains anything takes ``1 - 0.05 / m``.

    Returns
    -------
    Gain
        Values are nan where there are fewer than ten errors or ten successes.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a doubt is nan or infinite.
    """
    doubt, wrong = checked(doubt, wrong)
    second, _ = checked(second, wrong)
    if not (doubt.isfinite() & second.isfinite()).all():
        raise ValueError("A doubt is infinite; clamp it, so that a model can be fitted.")
    fitted = _half(wrong, seed)
    tested, few = ~fitted, min(int(wrong.sum()), int((~wrong).sum())) < 10
    if few:
        nan = float("nan")
        return Gain(nan, nan, nan, (nan, nan), (nan, nan), int(wrong[tested].sum()))
    pair = torch.stack([doubt, second], 1)
    one = fit_logistic(pair[fitted, :1], wrong[fitted])(pair[tested, :1])
    model = fit_logistic(pair[fitted], wrong[fitted])
    two, error = model(pair[tested]), wrong[tested]
    found = compare(two, one, error, samples=samples, level=level, seed=seed)
    return Gain(
        alone=auroc(one, error),
        both=auroc(two, error),
        difference=found.difference,
        interval=found.interval,
        weights=tuple(model.weight.tolist()),
        errors=int(error.sum()),
    )


def _half(wrong: Tensor, seed: int) -> Tensor:
    """Choose half of the errors and half of the successes at random: (n,) bool."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros_like(wrong)
    for kind in (wrong, ~wrong):
        index = kind.nonzero()[:, 0]
        order = torch.randperm(len(index), generator=generator)
        chosen[index[order[: len(index) // 2]]] = True
    return chosen
