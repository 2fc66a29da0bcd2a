"""Section 3.2 and figure 2: the construction, its known moments, and the traps of other rewrites."""

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, stats

from companion import synthetic_labels
from companion.study.calibration import calibrate, implied_signal_variance, largest_deviation
from companion.synthetic_labels import PLE
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks import synthetic
from mmoe_lib.tasks.synthetic import CALIBRATED, Constants

PAPER = pd.read_csv(Path(__file__).parents[2] / "data" / "paper" / "figure2_label_correlation.csv")
LINEAR = Constants("linear", c=1.3, alpha=(), beta=())


@pytest.mark.parametrize("p", [-1.0, -0.3, 0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("constants", [CALIBRATED, PLE])
def test_weight_vectors_have_length_c_and_cosine_p(p: float, constants: Constants) -> None:
    weights = synthetic.task_weights(p, seeded_generator(3, "test"), constants)
    assert weights.shape == (2, constants.num_inputs)
    # also closes the trap of a second vector without the scale c
    assert weights.norm(dim=1).tolist() == pytest.approx([constants.c] * 2, rel=1e-12)
    cosine = weights[0] @ weights[1] / constants.c**2
    assert float(cosine) == pytest.approx(p, abs=1e-12)


def test_label_is_linear_part_plus_sines_plus_noise_once() -> None:
    constants = Constants("hand", c=1.0, alpha=(2.0, 3.0), beta=(0.5, -0.25), num_inputs=2)
    x = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    noise = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    y = synthetic.make_labels(x, weights, noise, constants)
    first = 0.3 + math.sin(2 * 0.3 + 0.5) + math.sin(3 * 0.3 - 0.25) + 0.1
    second = -0.7 + math.sin(2 * -0.7 + 0.5) + math.sin(3 * -0.7 - 0.25) - 0.2
    assert y.flatten().tolist() == pytest.approx([first, second], rel=1e-12)


def test_noise_variance_is_a_hundredth() -> None:
    x = torch.zeros(200_000, 100)
    noise = torch.randn(200_000, 2, generator=seeded_generator(0, "test"))
    y = synthetic.make_labels(x, torch.zeros(2, 100), noise)
    assert y.var(dim=0).tolist() == pytest.approx([0.01, 0.01], rel=0.02)


@pytest.mark.parametrize("constants", [CALIBRATED, PLE])
def test_hermite_coefficients_agree_with_quadrature(constants: Constants) -> None:
    coefficients = synthetic_labels.hermite_coefficients(constants)
    for k in (0, 1, 2, 3, 7, 12):
        hermite = np.polynomial.hermite_e.HermiteE.basis(k)

        def integrand(z: float, hermite: np.polynomial.hermite_e.HermiteE = hermite) -> float:
            value = float(
                synthetic.noiseless_labels(torch.tensor(constants.c * z, dtype=torch.float64), constants)
            )
            return value * float(hermite(z)) * float(stats.norm.pdf(z))

        expected, _ = integrate.quad(integrand, -12, 12, limit=400)
        assert float(coefficients[k]) == pytest.approx(expected / math.sqrt(math.factorial(k)), abs=1e-7)


def _covariance_without_series(p: float, constants: Constants) -> float:
    """Covariance of the noiseless labels by products of sines of two correlated normals."""
    terms = [(a * constants.c, b) for a, b in zip(constants.alpha, constants.beta, strict=True)]
    total = constants.c**2 * p  # linear with linear
    for a, b in terms:
        total += 2 * constants.c * p * a * math.exp(-(a**2) / 2) * math.cos(b)  # Stein's lemma, both ways
        for other, phase in terms:
            spread = (a**2 + other**2) / 2
            cosines = math.exp(-spread + a * other * p) * math.cos(b - phase)
            cosines -= math.exp(-spread - a * other * p) * math.cos(b + phase)
            means = math.exp(-(a**2) / 2) * math.sin(b) * math.exp(-(other**2) / 2) * math.sin(phase)
            total += cosines / 2 - means
    return total


@pytest.mark.parametrize("constants", [CALIBRATED, PLE])
@pytest.mark.parametrize("p", [-1.0, -0.6, 0.0, 0.3, 0.9, 1.0])
def test_closed_form_agrees_with_the_form_without_series(p: float, constants: Constants) -> None:
    variance = _covariance_without_series(1.0, constants)
    assert synthetic_labels.signal_variance(constants) == pytest.approx(variance, rel=1e-10)
    expected = _covariance_without_series(p, constants) / (variance + constants.noise_variance)
    assert synthetic_labels.label_correlation(p, constants) == pytest.approx(expected, abs=1e-10)


def test_linear_labels_correlate_by_p_but_for_the_noise() -> None:
    for p in (-0.5, 0.2, 1.0):
        expected = p * 1.3**2 / (1.3**2 + 0.01)
        assert synthetic_labels.label_correlation(p, LINEAR) == pytest.approx(expected, rel=1e-12)


def test_closed_form_reproduces_figure_2() -> None:
    ours = [synthetic_labels.label_correlation(p) for p in PAPER["weight_cosine"]]
    assert np.abs(np.array(ours) - PAPER["label_correlation_mean"]).max() < 0.003


def test_sampling_agrees_with_the_closed_form_and_its_spread_with_the_paper() -> None:
    row = PAPER[PAPER["weight_cosine"] == 0.8].iloc[0]
    sample = synthetic_labels.sample_label_correlations(0.8, trials=40, points=10_000, seed=5)
    error = float(sample.std()) / math.sqrt(len(sample))
    assert abs(float(sample.mean()) - synthetic_labels.label_correlation(0.8)) < 4 * error
    # The same constants in every trial: redrawing alpha and beta would spread far wider.
    assert 0.6 < 2 * float(sample.std()) / row["two_standard_deviations"] < 1.6


def test_label_correlation_rises_with_the_cosine() -> None:
    values = [synthetic_labels.label_correlation(p) for p in np.linspace(0, 1, 101)]
    assert np.all(np.diff(values) > 0)


def test_a_run_draws_the_same_data_alone_and_among_others() -> None:
    together = islice(synthetic.stream(0.5, [4, 7, 9], 8), 40)
    alone = islice(synthetic.stream(0.5, [7], 8), 40)
    for (x, y), (x_alone, y_alone) in zip(together, alone, strict=True):
        assert torch.equal(x[1], x_alone[0])
        # the product with the directions may round differently by one unit in the last place
        torch.testing.assert_close(y[1], y_alone[0], rtol=1e-5, atol=1e-5)


def test_batches_are_fresh_and_standard_normal() -> None:
    batches = [x for x, _ in islice(synthetic.stream(0.5, [1], 64), 40)]
    x = torch.cat(batches, dim=1)[0]
    assert len(torch.unique(x[:, 0])) == len(x)
    assert stats.kstest(x[:, :20].flatten().numpy(), "norm").pvalue > 1e-3


def test_validation_is_the_same_task_on_other_rows() -> None:
    x, y = next(synthetic.stream(0.5, [1], 400, LINEAR))
    x_other, y_other = next(synthetic.stream(0.5, [1], 400, LINEAR, purpose="validation"))
    assert not torch.equal(x, x_other)
    # Linear labels give their direction away: least squares on one stream predicts the other.
    solution = torch.linalg.lstsq(x[0], y[0]).solution
    assert float((x_other[0] @ solution - y_other[0]).square().mean()) < 0.03


def test_runs_have_directions_of_their_own() -> None:
    weights = [synthetic.task_weights(0.5, seeded_generator(seed, "directions")) for seed in (0, 1)]
    cosine = weights[0][0] @ weights[1][0] / CALIBRATED.c**2
    assert abs(float(cosine)) < 0.5


@pytest.mark.parametrize("p", [1.0001, -1.5, math.nan, math.inf])
def test_a_correlation_outside_its_range_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"expected -1 <= p <= 1"):
        synthetic_labels.label_correlation(p)
    with pytest.raises(ValueError, match=r"expected -1 <= p <= 1"):
        synthetic.stream(p, [0], 4)


def test_bad_settings_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="alpha has 2 values and beta 1") as caught:
        Constants("bad", 1.0, (1.0, 2.0), (0.0,))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="num_inputs is 1"):
        Constants("bad", 1.0, (), (), num_inputs=1)
    with pytest.raises(ValueError, match="noise_variance is -1"):
        Constants("bad", 1.0, (), (), noise_variance=-1.0)
    with pytest.raises(ValueError, match="expected 1 or more of each"):
        synthetic.stream(0.5, [], 4)
    with pytest.raises(ValueError, match="seed is -1"):
        seeded_generator(-1, "test")


# --- inputs from a pool ------------------------------------------------------------------------------


def test_inputs_from_a_pool_are_stretches_of_it_and_labels_follow_from_them() -> None:
    pool = synthetic.InputPool.draw(20_000, seed=1)
    x, y = next(synthetic.stream(0.5, [3, 4], 2, pool=pool))
    for run, seed in enumerate((3, 4)):
        flat = x[run].flatten()
        place = int((pool.numbers == flat[0]).nonzero()[0])
        assert torch.equal(flat, pool.numbers[place : place + 200])
        weights = synthetic.task_weights(0.5, seeded_generator(seed, "directions")).float()
        noise = y[run] - synthetic.noiseless_labels(x[run] @ weights.T)
        assert 0 < float(noise.abs().max()) < 0.6  # sd 0.1: the noise is there, and is drawn for each
    assert not torch.equal(x[0], x[1])


def test_a_run_reads_the_same_stretches_alone_and_among_others() -> None:
    pool = synthetic.InputPool.draw(50_000, seed=1)
    together = [batch[0][1].clone() for batch in islice(synthetic.stream(0.5, [3, 4], 2, pool=pool), 40)]
    alone = [batch[0][0].clone() for batch in islice(synthetic.stream(0.5, [4], 2, pool=pool), 40)]
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))
    assert not torch.equal(alone[0], alone[16])  # another stretch for the next block


def test_vectors_from_a_pool_are_standard_normal_and_rarely_alike() -> None:
    pool = synthetic.InputPool.draw(2**20, seed=0)
    x = torch.cat([batch[0][0] for batch in islice(synthetic.stream(1.0, [0], 64, pool=pool), 160)])
    assert float(x.mean()) == pytest.approx(0, abs=0.01)
    assert float(x.var()) == pytest.approx(1, abs=0.01)
    # 10,240 vectors out of a million numbers overlap, but hardly one is the same vector twice
    assert len({tuple(row) for row in x[:, :3].tolist()}) > 0.99 * len(x)
    covariance = (x.T @ x) / len(x)
    assert float((covariance - torch.eye(100)).abs().max()) < 0.08


def test_a_batch_stays_as_it_was_when_the_next_are_drawn() -> None:
    batches = synthetic.stream(0.5, [0], 4)
    x, y = next(batches)
    before = x.clone(), y.clone()
    for _ in range(40):
        next(batches)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_a_pool_shorter_than_what_is_read_is_refused() -> None:
    pool = synthetic.InputPool.draw(1_000)
    with pytest.raises(ValueError, match="the pool holds 1000 numbers, expected 6400 or more"):
        next(synthetic.stream(0.5, [0], 4, pool=pool))


# --- what figure 2 determines --------------------------------------------------------------------------

FIGURE_2 = dict(zip(PAPER["weight_cosine"], PAPER["label_correlation_mean"], strict=True))


@pytest.mark.parametrize("name", ["calibrated", "m = 5", "m = 6", "odd"])
def test_every_calibration_meets_figure_2(name: str) -> None:
    assert largest_deviation(synthetic_labels.CONSTANTS[name], FIGURE_2) < 0.002


def test_constants_of_another_kind_do_not_meet_it() -> None:
    assert largest_deviation(PLE, FIGURE_2) > 0.3


def test_signal_variance_follows_from_the_correlation_at_one() -> None:
    for constants in (synthetic.CALIBRATED, synthetic_labels.ODD, PLE):
        at_one = synthetic_labels.label_correlation(1.0, constants)
        assert implied_signal_variance(at_one) == pytest.approx(synthetic_labels.signal_variance(constants))
    assert implied_signal_variance(FIGURE_2[1.0]) == pytest.approx(2.85, abs=0.01)
    with pytest.raises(ValueError, match="expected more than 0 and less than 1"):
        implied_signal_variance(1.0)


def test_four_sines_meet_figure_2_and_two_cannot() -> None:
    four = calibrate(FIGURE_2, 4, starts=4)
    assert largest_deviation(four, FIGURE_2) < 0.0015
    assert largest_deviation(calibrate(FIGURE_2, 2, starts=4), FIGURE_2) > 0.004
    assert calibrate(FIGURE_2, 2, starts=2, seed=3) == calibrate(FIGURE_2, 2, starts=2, seed=3)
    # the search found them, and the closed form agrees with sampling
    sampled = synthetic_labels.sample_label_correlations(0.9, trials=20, constants=four)
    assert float(sampled.mean()) == pytest.approx(synthetic_labels.label_correlation(0.9, four), abs=0.012)
    with pytest.raises(ValueError, match="m is 0 and starts 10"):
        calibrate(FIGURE_2, 0)


def test_the_linear_share_is_fixed_but_c_is_not() -> None:
    """All calibrations share h_1^2 / V, the slope of figure 2 at 0, while c^2 / V differs by a factor of four."""
    shares, lengths = [], []
    for name in ("calibrated", "m = 5", "m = 6", "odd"):
        constants = synthetic_labels.CONSTANTS[name]
        variance = synthetic_labels.signal_variance(constants)
        shares.append(float(synthetic_labels.hermite_coefficients(constants)[1] ** 2) / variance)
        lengths.append(constants.c**2 / variance)
    assert max(shares) - min(shares) < 0.01
    assert max(lengths) / min(lengths) > 3


def test_many_tasks_have_the_cosines_that_are_asked_for() -> None:
    correlations = torch.tensor(
        [[1.0, 0.5, -0.2, 1.0], [0.5, 1.0, 0.3, 0.5], [-0.2, 0.3, 1.0, -0.2], [1.0, 0.5, -0.2, 1.0]]
    )
    weights = synthetic.many_task_weights(correlations, seeded_generator(4, "directions"))
    assert weights.shape == (4, 100)
    cosines = weights @ weights.T / synthetic.CALIBRATED.c**2
    torch.testing.assert_close(cosines, correlations.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("p", [-1.0, -0.3, 0.0, 0.5, 1.0])
def test_many_tasks_are_the_papers_two_when_there_are_two(p: float) -> None:
    pair = synthetic.task_weights(p, seeded_generator(3, "directions"))
    many = synthetic.many_task_weights(synthetic.equal_correlations(p, 2), seeded_generator(3, "directions"))
    torch.testing.assert_close(many, pair)
    by_p, by_matrix = (
        next(synthetic.stream(correlation, (1, 2), 8))
        for correlation in (p, synthetic.equal_correlations(p, 2))
    )
    torch.testing.assert_close(by_matrix, by_p)


def test_a_stream_of_many_tasks_has_their_label_correlation() -> None:
    batches = synthetic.stream(synthetic.equal_correlations(0.5, 5), (0,), 40_000)
    x, y = next(batches)
    assert x.shape == (1, 40_000, 100)
    assert y.shape == (1, 40_000, 5)
    expected = synthetic_labels.label_correlation(0.5)
    found = torch.corrcoef(y[0].T)
    torch.testing.assert_close(
        found, expected + (1 - expected) * torch.eye(5), atol=0.03, rtol=0, check_dtype=False
    )


@pytest.mark.parametrize(
    "matrix",
    [
        torch.tensor([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]]),  # no three vectors have these
        torch.tensor([[1.0, 0.5], [0.2, 1.0]]),
        torch.tensor([[2.0, 0.5], [0.5, 2.0]]),
        torch.ones(2, 3),
    ],
)
def test_what_is_no_matrix_of_cosines_is_refused(matrix: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no matrix of cosines"):
        synthetic.many_task_weights(matrix, seeded_generator(0, "directions"))
    with pytest.raises(ValueError, match="no matrix of cosines"):
        synthetic.stream(matrix, (0,), 4)


def test_more_tasks_than_dimensions_or_too_unlike_ones_are_refused() -> None:
    small = replace(synthetic.CALIBRATED, num_inputs=3)
    with pytest.raises(ValueError, match="4 tasks in 3 dimensions"):
        synthetic.many_task_weights(torch.eye(4), seeded_generator(0, "directions"), small)
    with pytest.raises(ValueError, match="no matrix of cosines"):
        synthetic.equal_correlations(-0.6, 3)


# --- drawn by counters, as on a GPU -------------------------------------------------------------------


@pytest.mark.parametrize("runs", [1, 7, 200])
def test_drawn_minibatches_of_a_run_do_not_depend_on_its_stack(runs: int, device: str) -> None:
    weights = synthetic.task_weights(0.5, seeded_generator(0, "directions")).expand(runs, -1, -1)
    stream = synthetic.DrawnStream(weights.to(device, torch.float32), range(runs), 32)
    alone = synthetic.DrawnStream(weights[:1].to(device, torch.float32), [0], 32)
    for _ in range(3):
        (x, y), (x_alone, y_alone) = next(stream), next(alone)
        assert torch.equal(x[:1], x_alone)
        torch.testing.assert_close(y[:1], y_alone, rtol=1e-5, atol=1e-5)


def test_the_noise_of_drawn_labels_is_none_of_the_inputs(device: str) -> None:
    weights = torch.zeros(
        2, 2, 100, device=device, dtype=torch.float64
    )  # so that a label is noise and a constant
    constants = replace(CALIBRATED, noise_variance=0.25)
    stream = synthetic.DrawnStream(weights, [3, 4], 1000, constants)
    x, y = next(stream)
    noise = y - y.mean(dim=1, keepdim=True)
    assert float(noise.var()) == pytest.approx(0.25, rel=0.1)
    drawn, labels = x[0].flatten(), noise[0].flatten()
    # The first numbers of both are counted alike; if they were one stream, they would be the same numbers.
    correlation = torch.corrcoef(torch.stack([drawn[: len(labels) // 4], labels[: len(labels) // 4]]))[0, 1]
    assert abs(float(correlation)) < 5 / (len(labels) // 4) ** 0.5
