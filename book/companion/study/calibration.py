"""Constants of the synthetic task that meet the paper's figure 2: what that figure determines, and what not."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares

from companion.synthetic_labels import label_correlation
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.synthetic import Constants

_FASTEST = 9.0
"""Largest alpha c that is searched: a sine that turns this fast within a standard deviation is noise to a network,
and 260 Hermite coefficients hold all of it."""
_TERMS = 260


def largest_deviation(constants: Constants, published: Mapping[float, float]) -> float:
    """Largest distance of the closed form from published label correlations by cosine."""
    return max(abs(label_correlation(p, constants) - value) for p, value in published.items())


def implied_signal_variance(correlation_at_one: float, noise_variance: float = 0.01) -> float:
    """V from the label correlation at p = 1, where only the noise parts the labels: corr = V / (V + noise).

    Raises:
        ValueError: If the correlation is not between 0 and 1.
    """
    if not 0 < correlation_at_one < 1:
        raise ValueError(f"correlation_at_one is {correlation_at_one}, expected more than 0 and less than 1")
    return noise_variance * correlation_at_one / (1 - correlation_at_one)


def calibrate(published: Mapping[float, float], m: int, *, starts: int = 10, seed: int = 0) -> Constants:
    """Search c, alpha and beta of m sines whose closed form meets published label correlations.

    Least squares from random starts; the best of them is returned. Many sets of constants meet the same
    correlations, and another seed finds another.

    Args:
        published: Mean label correlation by weight cosine.
        m: Number of sines.
        starts: Random starts.
        seed: Of the starts.

    Raises:
        ValueError: If m or starts is below 1.
    """
    if m < 1 or starts < 1:
        raise ValueError(f"m is {m} and starts {starts}, expected 1 or more of each")
    p, wanted = np.array(list(published)), np.array(list(published.values()))
    k = np.arange(1, _TERMS)
    log_sqrt_factorial = torch.lgamma(torch.tensor(k + 1.0)).numpy() / 2
    powers = p[:, None] ** k  # (points, terms)

    def residuals(values: NDArray[np.float64]) -> NDArray[np.float64]:
        c, amplitude, beta = np.exp(values[0]), np.exp(values[1 : m + 1]), values[m + 1 :]
        # h_k = [k = 1] c + sum_i a_i^k exp(-a_i^2 / 2) sin(beta_i + k pi / 2) / sqrt(k!),  a_i = alpha_i c
        size = np.exp(k * np.log(amplitude)[:, None] - amplitude[:, None] ** 2 / 2 - log_sqrt_factorial)
        squares = ((size * np.sin(beta[:, None] + k * math.pi / 2)).sum(axis=0) + (k == 1) * c) ** 2
        found = powers @ squares / (squares.sum() + 0.01)
        # The second part keeps the sines slow enough; 1000: in units of the third digit.
        return np.append(1000 * (found - wanted), 50 * np.maximum(0, amplitude - _FASTEST))

    generator = seeded_generator(seed, f"calibration with {m} sines")
    best = None
    for _ in range(starts):
        uniform = torch.rand(2 * m + 1, generator=generator, dtype=torch.float64).numpy()
        start = np.concatenate(
            [
                np.log(0.3 + 0.7 * uniform[:1]),
                np.log(0.5 + 7.5 * uniform[1 : m + 1]),
                2 * math.pi * uniform[m + 1 :],
            ]
        )
        fit = least_squares(residuals, start, max_nfev=200)
        best = fit if best is None or fit.cost < best.cost else best
    assert best is not None
    c, amplitude = math.exp(best.x[0]), np.exp(best.x[1 : m + 1])
    order = np.argsort(amplitude)
    return Constants(
        f"{m} sines, seed {seed}",
        c=c,
        alpha=tuple((amplitude[order] / c).tolist()),
        beta=tuple((best.x[m + 1 :][order] % (2 * math.pi)).tolist()),
    )
