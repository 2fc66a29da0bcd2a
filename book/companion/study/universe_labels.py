"""Labels drawn from what the paper's figure 2 leaves open: a seeded chain a universe, and what a label is like.

The posterior of the constants c, alpha and beta given the nine means of figure 2. Prior: log-uniform c in 0.03 .. 1.5
and log-uniform alpha_i c in 0.3 .. 9, uniform phases. Errors of the figure: normal, 0.0012 (0.00015 at p = 1), which is
the standard error of a mean of 100 trials, and about what can be read off. Modes are narrow and far apart, so a chain is
tempered: twenty copies at rising temperatures, the coldest the posterior itself, exchange their places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.synthetic import Constants

Array = NDArray[np.float64]

LENGTHS = (0.03, 1.5)
"""Between which c is drawn, log-uniformly."""
SPEEDS = (0.3, 9.0)
"""Between which every alpha c is drawn, log-uniformly: radians a standard deviation of the projection."""
ERROR, ERROR_AT_ONE = 0.0012, 0.00015
"""Standard deviations of the figure's points."""
WITHIN = 0.0035
"""The largest deviation from a point of the figure that is accepted, three of its errors."""
TEMPERATURES = 3.0 ** np.arange(20)
"""Of the copies of a chain; the hottest roams over the whole prior."""
OTHER_KINDS = ("PLE", "smoother", "rougher")
"""Of labels that do not look at figure 2."""
_TERMS = 260
_K = np.arange(1, _TERMS)
_LOG_SQRT_FACTORIAL = np.array([math.lgamma(k + 1) / 2 for k in _K])
_SWAP_EVERY = 5


def hermite_squares(c: Array, speeds: Array, phases: Array) -> Array:
    """Squared Hermite coefficients h_1^2, h_2^2, ... of the label's signal.

    Args:
        c: Lengths (N,).
        speeds: alpha_i c, (N, m).
        phases: beta_i, (N, m).

    Returns:
        (N, 259): h_k^2 = ([k = 1] c + sum_i a_i^k exp(-a_i^2 / 2) sin(beta_i + k pi / 2) / sqrt(k!))^2.
    """
    a = speeds[..., None]  # (N, m, 1)
    size = np.exp(_K * np.log(a) - a**2 / 2 - _LOG_SQRT_FACTORIAL)  # (N, m, terms)
    # sin(beta + k pi / 2) for k = 1, 2, 3, 4: cos, -sin, -cos, sin
    sine, cosine = np.sin(phases), np.cos(phases)
    turned = np.stack([cosine, -sine, -cosine, sine], axis=-1)[..., (_K - 1) % 4]  # (N, m, terms)
    coefficients: Array = (size * turned).sum(axis=1)  # (N, terms)
    coefficients[:, 0] += c
    return coefficients**2


def deviations(squares: Array, published: Mapping[float, float], noise_variance: float = 0.01) -> Array:
    """The closed form's label correlations minus the published ones, (N, points)."""
    powers = np.array(list(published))[:, None] ** _K  # (points, terms)
    found = squares @ powers.T / (squares.sum(axis=1, keepdims=True) + noise_variance)
    return np.asarray(found - np.array(list(published.values())))


def draw_label(
    name: str, m: int, published: Mapping[float, float], *, seed: int, steps: int = 6_000
) -> Constants:
    """One draw from the posterior of m sines given figure 2.

    Args:
        name: Of the constants.
        m: Number of sines.
        published: Mean label correlation by weight cosine.
        seed: Of the chain.
        steps: Of the chain; then until the coldest copy lies within `WITHIN` of every point.

    Raises:
        ValueError: If no copy gets there in ten times as many steps.
    """
    random = np.random.Generator(
        np.random.Philox(seeded_generator(seed, f"label with {m} sines").initial_seed())
    )
    low = np.log([LENGTHS[0], *[SPEEDS[0]] * m])
    width = np.log([LENGTHS[1], *[SPEEDS[1]] * m]) - low
    errors = np.array([ERROR_AT_ONE if p == 1 else ERROR for p in published])
    copies = len(TEMPERATURES)
    # A place is (log c, log alpha_1 c, ...) as shares of their ranges, and the phases as shares of a turn.
    places = random.random((copies, 2 * m + 1))

    def badness(places: Array) -> tuple[Array, Array]:
        logs = low + width * places[:, : m + 1]
        squares = hermite_squares(np.exp(logs[:, 0]), np.exp(logs[:, 1:]), 2 * math.pi * places[:, m + 1 :])
        off = deviations(squares, published)
        return ((off / errors) ** 2).sum(axis=1) / 2, np.abs(off).max(axis=1)

    bad, worst = badness(places)
    scale = np.minimum(0.3, 0.003 * np.sqrt(TEMPERATURES))  # of a step
    for step in range(1, 10 * steps + 1):
        # Student steps: most are small, a few cross to another mode
        proposed = places + scale[:, None] * random.standard_t(2, places.shape)
        proposed[:, m + 1 :] %= 1.0
        inside = ((proposed[:, : m + 1] > 0) & (proposed[:, : m + 1] < 1)).all(axis=1)
        new, new_worst = badness(np.where(inside[:, None], proposed, places))
        taken = inside & (np.log(random.random(copies)) < (bad - new) / TEMPERATURES)
        places = np.where(taken[:, None], proposed, places)
        bad, worst = np.where(taken, new, bad), np.where(taken, new_worst, worst)
        if step <= steps // 2:  # steps of which a quarter is taken; afterwards they stay
            scale = np.clip(scale * np.where(taken, 1.06, 0.98), 1e-6, 0.5)
        if step % _SWAP_EVERY == 0:
            for cold in range((step // _SWAP_EVERY) % 2, copies - 1, 2):
                gain = (bad[cold] - bad[cold + 1]) * (1 / TEMPERATURES[cold] - 1 / TEMPERATURES[cold + 1])
                if np.log(random.random()) < gain:
                    swap = [cold + 1, cold]
                    places[[cold, cold + 1]] = places[swap]
                    bad[[cold, cold + 1]], worst[[cold, cold + 1]] = bad[swap], worst[swap]
        if step >= steps and worst[0] < WITHIN:
            logs = low + width * places[0, : m + 1]
            return labelled(name, float(np.exp(logs[0])), np.exp(logs[1:]), 2 * math.pi * places[0, m + 1 :])
    raise ValueError(
        f"{name}: no label of {m} sines came within {WITHIN} of figure 2 in {10 * steps} steps, expected one: "
        "take another seed or more sines"
    )


def labelled(name: str, c: float, speeds: Array, phases: Array, num_inputs: int = 100) -> Constants:
    """Constants with the sines in order of their frequency, to nine digits."""
    order = np.argsort(speeds)
    return Constants(
        name,
        c=float(f"{c:.9g}"),
        alpha=tuple(float(f"{value / c:.9g}") for value in speeds[order]),
        beta=tuple(float(f"{value:.9g}") for value in phases[order]),
        num_inputs=num_inputs,
    )


def draw_other(name: str, kind: str, *, seed: int) -> Constants:
    """A label that does not look at figure 2.

    Args:
        name: Of the constants.
        kind: "PLE": ten sines, alpha and beta standard normal, c = 1 (Tang et al., RecSys 2020), of 100 inputs;
            "smoother": four to seven sines with alpha c in 0.3 .. 3; "rougher": in 9 .. 20.
        seed: Of the draw.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind not in OTHER_KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(OTHER_KINDS)}: choose one of these")
    random = np.random.Generator(np.random.Philox(seeded_generator(seed, f"{kind} label").initial_seed()))
    if kind == "PLE":
        alpha, phases = random.standard_normal((2, 10))
        return labelled(name, 1.0, alpha, phases)
    low, high = np.log((0.3, 3.0) if kind == "smoother" else (9.0, 20.0))
    m = int(random.integers(4, 8))
    c = math.exp(random.uniform(*np.log(LENGTHS)))
    speeds = np.exp(random.uniform(low, high, m))
    return labelled(name, c, speeds, random.uniform(0, 2 * math.pi, m))


def features(constants: Constants, published: Mapping[float, float]) -> dict[str, float]:
    """What a label is like, by numbers that do not depend on how its sines are written.

    Returns:
        sines; signal_variance V = sum_{k >= 1} h_k^2; linear_share h_1^2 / V; even_share, of even k;
        roughness E[g'(z)^2] = sum_k k h_k^2; slowest and fastest |alpha c|; counts of slow (below 2), middle (2 to 5)
        and fast (above 5) sines; off_figure_2, the largest deviation from it.
    """
    speeds = np.abs(np.array(constants.alpha)) * constants.c
    # a sine of frequency -a and phase b is one of frequency a and phase pi - b
    phases = np.where(np.array(constants.alpha) < 0, math.pi - np.array(constants.beta), constants.beta)
    squares = hermite_squares(np.array([constants.c]), np.maximum(speeds, 1e-9)[None], phases[None])[0]
    variance = float(squares.sum())
    return {
        "sines": constants.m,
        "signal_variance": variance,
        "linear_share": float(squares[0] / variance),
        "even_share": float(squares[_K % 2 == 0].sum() / variance),
        "roughness": float((_K * squares).sum()),
        "slowest": float(speeds.min()),
        "fastest": float(speeds.max()),
        "slow_sines": int((speeds < 2).sum()),
        "middle_sines": int(((speeds >= 2) & (speeds <= 5)).sum()),
        "fast_sines": int((speeds > 5).sum()),
        "off_figure_2": float(np.abs(deviations(squares[None], published, constants.noise_variance)).max()),
    }
