"""How correlated the labels of the synthetic tasks are, and other constants than the calibrated ones.

The paper does not publish its constants c, m, alpha and beta: the sets here meet its figure 2 as well as
`mmoe_lib.tasks.synthetic.CALIBRATED`, but for `PLE`, which follows Tang et al. (RecSys 2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.synthetic import (
    CALIBRATED,
    NEAREST_10,
    NEAREST_40,
    Constants,
    check_correlation,
    make_labels,
    task_weights,
)


def ple_constants(seed: int = 0) -> Constants:
    """The choice of Tang et al. (RecSys 2020): alpha, beta ~ N(0, 1), c = 1, m = 10, d = 512.

    Their draw of alpha and beta is not published, so each seed is one draw of the same kind.
    """
    generator = seeded_generator(seed, "constants of PLE")
    alpha, beta = torch.randn(2, 10, generator=generator, dtype=torch.float64).tolist()
    return Constants("PLE", c=1.0, alpha=tuple(alpha), beta=tuple(beta), num_inputs=512)


# Three more that meet figure 2 as well, of those that a search from random starts finds (the book's appendix
# on open choices): with five and six sines, and an odd label with a steeper linear part.
FIVE_SINES = Constants(
    "m = 5", c=0.515, alpha=(16.469, 10.693, 10.746, 4.247, 5.676), beta=(3.609, 1.567, 0.085, 5.245, 3.755)
)
SIX_SINES = Constants(
    "m = 6",
    c=0.481,
    alpha=(17.637, 5.257, 2.773, 5.146, 11.363, 11.568),
    beta=(4.324, 3.582, 5.191, 2.196, 0.011, 1.487),
)
ODD = Constants("odd", c=0.905, alpha=(2.018, 3.980, 6.473, 8.745), beta=(math.pi,) * 4)
PLE = ple_constants()
CONSTANTS = {
    constants.name: constants
    for constants in (CALIBRATED, FIVE_SINES, SIX_SINES, ODD, NEAREST_40, NEAREST_10, PLE)
}


def hermite_coefficients(constants: Constants = CALIBRATED, terms: int = 400) -> Tensor:
    """The label's signal g(z), z = u'x ~ N(0, 1), in normalised Hermite polynomials.

    h_k = E[g(z) He_k(z)] / sqrt(k!) = E[g^(k)(z)] / sqrt(k!), and for one sine
    E[sin^(k)(a z + b)] = a^k exp(-a^2 / 2) sin(b + k pi / 2), with a = alpha_i c.

    Args:
        constants: The task's constants.
        terms: How many coefficients; a sine of amplitude a in z has spent its variance well before
            k = a^2 + 10 a.

    Returns:
        Coefficients h_0 .. h_{terms - 1}, float64.
    """
    k = torch.arange(terms, dtype=torch.float64)
    log_sqrt_factorial = torch.lgamma(k + 1) / 2
    coefficients = torch.zeros(terms, dtype=torch.float64)
    coefficients[1] = constants.c  # the linear part c z
    for alpha, beta in zip(constants.alpha, constants.beta, strict=True):
        a = alpha * constants.c
        if a == 0.0:
            coefficients[0] += math.sin(beta)
            continue
        # in logarithms: a^k and k! overflow long before their ratio does
        size = torch.exp(k * math.log(abs(a)) - a * a / 2 - log_sqrt_factorial)
        sign = torch.where((k % 2 == 1) & (a < 0), -1.0, 1.0)
        coefficients += sign * size * torch.sin(beta + k * math.pi / 2)
    return coefficients


def signal_variance(constants: Constants = CALIBRATED) -> float:
    """Variance V of the noiseless label: the sum of h_k^2 over k >= 1."""
    return float(hermite_coefficients(constants)[1:].square().sum())


def label_correlation(p: float, constants: Constants = CALIBRATED) -> float:
    """Pearson correlation of the two labels in closed form (figure 2 without sampling).

    corr(p) = sum_{k >= 1} h_k^2 p^k / (V + noise variance), by Mehler's formula.

    Raises:
        ValueError: If p is outside [-1, 1].
    """
    check_correlation(p)
    squares = hermite_coefficients(constants)[1:].square()
    powers = torch.tensor(p, dtype=torch.float64) ** torch.arange(1, len(squares) + 1)
    return float((squares * powers).sum() / (squares.sum() + constants.noise_variance))


def sample_label_correlations(
    p: float, trials: int, points: int = 10_000, constants: Constants = CALIBRATED, *, seed: int = 0
) -> Tensor:
    """Figure 2 by sampling: the label correlation of `points` examples, `trials` times.

    Args:
        p: Task correlation in [-1, 1].
        trials: Independent repetitions (the paper: 100), each with its own directions and data.
        points: Examples a trial (the paper: 10,000).
        constants: The task's constants.
        seed: Trial t uses seed + t.

    Returns:
        One Pearson correlation a trial, float64, shape (trials,).
    """
    correlations = []
    for trial in range(trials):
        weights = task_weights(p, seeded_generator(seed + trial, "directions"), constants).float()
        generator = seeded_generator(seed + trial, "figure 2")
        x = torch.randn(points, constants.num_inputs, generator=generator)
        noise = torch.randn(points, 2, generator=generator)
        y = make_labels(x, weights, noise, constants).double()  # (points, 2)
        correlations.append(torch.corrcoef(y.T)[0, 1])
    return torch.stack(correlations)
