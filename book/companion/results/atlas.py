"""The atlas of task pairs: the effect on each pair, what all pairs say together, and what predicts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from companion.census_targets import target_of
from companion.results.intervals import difference_interval

TASKS = ("test_auc_1", "test_auc_2")
CHANCE = 0.005
"""A run whose AUC lies so near to 0.5 learned nothing: its tower died."""

EFFECTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "sharing": ("Shared-Bottom", "Single-Task"),
        "MMoE": ("MMoE", "Shared-Bottom"),
        "gates": ("MMoE", "OMoE"),
        "gates or a layer": ("MMoE", "Deeper Shared-Bottom"),
    }
)
"""What each effect compares: the first model minus the second."""

FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "correlation": "label correlation",
        "related": "its absolute value",
        "rarity": "log share of the rarest class",
        "cosine": "cosine of the tasks' gradients",
        "norms": "ratio of the gradients' norms, the larger over the smaller",
        "same_family": "both questions on one subject",
    }
)
"""What is known of a pair before its models are compared, and what readers call it."""


def complete_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the pairs that all models have finished."""
    models = {model for pair in EFFECTS.values() for model in pair}
    done = rows.groupby("pair")["model"].nunique()
    return rows[rows["pair"].isin(done[done == len(models)].index)].reset_index(drop=True)


def died(rows: pd.DataFrame) -> pd.Series[bool]:
    """Runs of which a task learned nothing, or that diverged."""
    aucs = rows[list(TASKS)]
    return ((aucs - 0.5).abs() < CHANCE).any(axis=1) | aucs.isna().any(axis=1)


def pair_effects(rows: pd.DataFrame, effect: str, value: str = "auc") -> pd.DataFrame:
    """An effect on every pair, in points (1/100): the mean over both tasks of the difference of means.

    Columns: pair, target_1, target_2, effect, error (standard error over runs), low, high (Welch's 95 % interval),
    effect_1, effect_2 (of each task), dead (runs of both models that died and are left out). Pairs on which a model has
    fewer than two runs that learned are left out.

    Args:
        rows: Of `data/results/atlas.csv`, one preset, of complete pairs.
        effect: One of `EFFECTS`.
        value: "auc" or "precision"; of "log_loss" the difference is that of losses times 100.
    """
    better, worse = EFFECTS[effect]
    columns = [f"test_{value}_{task}" for task in (1, 2)]
    lost = died(rows)
    found = []
    for pair, of_pair in rows.groupby("pair"):
        able = of_pair[~lost[of_pair.index]]
        ours, theirs = (100 * able[able["model"] == model][columns].to_numpy() for model in (better, worse))
        if min(len(ours), len(theirs)) < 2:
            continue
        mean, low, high = difference_interval(ours.mean(axis=1), theirs.mean(axis=1))
        error = np.sqrt(sum(part.mean(axis=1).var(ddof=1) / len(part) for part in (ours, theirs)))
        each = ours.mean(axis=0) - theirs.mean(axis=0)
        first = of_pair.iloc[0]
        dead = int(lost[of_pair.index][of_pair["model"].isin([better, worse])].sum())
        found.append(
            (pair, first["target_1"], first["target_2"], mean, float(error), low, high, *each.tolist(), dead)
        )
    names = ["pair", "target_1", "target_2", "effect", "error", "low", "high", "effect_1", "effect_2", "dead"]
    return pd.DataFrame(found, columns=names)


def meta_analysis(effects: ArrayLike, errors: ArrayLike, level: float = 0.95) -> dict[str, float]:
    r"""A random-effects meta-analysis: the mean effect of pairs like these, and how far a new pair lies from it.

    Each effect is :math:`y_i = \mu + u_i + e_i` with :math:`u_i` of variance :math:`\tau^2` between pairs and
    :math:`e_i` of the known variance :math:`s_i^2`. :math:`\tau^2` is Paule and Mandel's (1982): the one at which
    :math:`\sum w_i (y_i - \mu)^2 = k - 1`, :math:`w_i = 1 / (s_i^2 + \tau^2)`, or 0 where the effects lie closer together than
    their errors; the interval of :math:`\mu` is Hartung and Knapp's (2001), never shorter than Student's with the known
    errors, so that :math:`\mu \pm t_{k-1} / \sqrt{\sum w_i}`; the prediction interval is that of Higgins, Thompson and Spiegelhalter (2009).

    Args:
        effects: One a pair.
        errors: Their standard errors.
        level: Of confidence.

    Returns:
        pairs, mean, low, high; tau, the standard deviation between pairs; i_squared, the share of variance that is
        between pairs; new_low, new_high, where a new pair's true effect lies.

    Raises:
        ValueError: If there are fewer than three pairs, lengths differ, or an error is not positive.
    """
    y, s = np.asarray(effects, dtype=float), np.asarray(errors, dtype=float)
    if y.ndim != 1 or y.shape != s.shape or len(y) < 3 or not (s > 0).all() or not np.isfinite(y).all():
        raise ValueError(
            f"got {y.shape} effects and {s.shape} errors, expected three or more finite ones and as many positive errors"
        )
    count = len(y)

    def weighted(tau_squared: float) -> tuple[float, float, float]:
        """The mean, the sum of the weights, and Q."""
        weights = 1 / (s**2 + tau_squared)
        mean = float((weights * y).sum() / weights.sum())
        return mean, float(weights.sum()), float((weights * (y - mean) ** 2).sum())

    high = 1.0
    while weighted(high)[2] > count - 1:
        high *= 2
    low = 0.0
    if weighted(0.0)[2] > count - 1:
        for _ in range(200):  # Q falls as tau^2 rises
            middle = (low + high) / 2
            low, high = (middle, high) if weighted(middle)[2] > count - 1 else (low, middle)
    tau_squared = low
    mean, total, _ = weighted(tau_squared)
    error = 1 / np.sqrt(total)
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    new = float(stats.t.ppf((1 + level) / 2, count - 2)) * np.sqrt(tau_squared + error**2)
    # Higgins and Thompson's typical variance within pairs (2002).
    fixed = 1 / s**2
    typical = (count - 1) * fixed.sum() / (fixed.sum() ** 2 - (fixed**2).sum())
    return {
        "pairs": count,
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "tau": float(np.sqrt(tau_squared)),
        "i_squared": float(tau_squared / (tau_squared + typical)),
        "new_low": mean - float(new),
        "new_high": mean + float(new),
    }


def shares(effects: pd.DataFrame, matters: float) -> dict[str, int]:
    """On how many pairs an effect helps or hurts by what matters: the estimate reaches it and the interval excludes 0.

    Args:
        effects: Of `pair_effects`.
        matters: In points.

    Returns:
        pairs, helps, hurts, within (the whole interval inside plus and minus what matters), open.
    """
    helps = (effects["effect"] >= matters) & (effects["low"] > 0)
    hurts = (effects["effect"] <= -matters) & (effects["high"] < 0)
    within = (effects["low"] > -matters) & (effects["high"] < matters)
    return {
        "pairs": len(effects),
        "helps": int(helps.sum()),
        "hurts": int(hurts.sum()),
        "within": int(within.sum()),
        "open": int((~helps & ~hurts & ~within).sum()),
    }


def pair_features(rows: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """What is known of every pair: the columns of `FEATURES`, by pair.

    Args:
        rows: Of `data/results/atlas.csv`.
        pairs: Of `data/results/atlas_pairs.csv`.
    """
    facts = pairs.set_index("seed")
    measured = rows[rows["model"] == "Shared-Bottom"].groupby("pair")[
        ["gradient_cosine", "gradient_norm_1", "gradient_norm_2"]
    ]
    means = measured.mean()
    found = pd.DataFrame(
        {
            "correlation": facts["label_correlation"],
            "related": facts["label_correlation"].abs(),
            "rarity": np.log(
                facts[["share_1", "share_2"]].apply(lambda share: np.minimum(share, 1 - share)).min(axis=1)
            ),
            "same_family": [
                float(target_of(one).family == target_of(other).family)
                for one, other in zip(facts["target_1"], facts["target_2"], strict=True)
            ],
        }
    ).reindex(means.index)
    found["cosine"] = means["gradient_cosine"]
    found["norms"] = (np.log(means["gradient_norm_1"]) - np.log(means["gradient_norm_2"])).abs()
    return found[list(FEATURES)].rename_axis("pair")


def predictors(effects: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """Whether a feature of a pair tells its effect: a row a feature, and one for all of them together.

    Columns: feature, rank_correlation (Spearman's) with low and high (95 %, Fisher's z with Bonett and Wright's error), skill
    (cross-validated R2 of a straight line, leaving out one pair at a time; below 0 is worse than the mean).

    Args:
        effects: Of `pair_effects`.
        features: Of `pair_features`.
    """
    joined = effects.set_index("pair").join(features, how="inner")
    y, found = joined["effect"].to_numpy(), []
    for name, meaning in FEATURES.items():
        x = joined[name].to_numpy(dtype=float)
        rank = float(stats.spearmanr(x, y).statistic) if np.ptp(x) > 0 else float("nan")
        half = 1.96 * np.sqrt((1 + rank**2 / 2) / (len(y) - 3))
        low, high = np.tanh(np.arctanh(np.clip(rank, -0.999999, 0.999999)) + np.array([-half, half]))
        found.append((meaning, rank, float(low), float(high), left_out_skill(x[:, None], y)))
    together = left_out_skill(joined[list(FEATURES)].to_numpy(dtype=float), y)
    found.append(("all together", float("nan"), float("nan"), float("nan"), together))
    return pd.DataFrame(found, columns=["feature", "rank_correlation", "low", "high", "skill"])


def left_out_skill(features: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """R2 of least squares when every row is predicted from the others: 1 - PRESS / sum (y - mean of the others)^2.

    The prediction error of row i is its residual over 1 - h_ii, h the diagonal of the hat matrix (Allen, 1974). NaN where
    there are hardly more rows than features.
    """
    if len(values) < features.shape[1] + 3:
        return float("nan")
    x = np.column_stack([np.ones(len(values)), features])
    hat = x @ np.linalg.pinv(x)
    left_out = (values - hat @ values) / (1 - np.diag(hat))
    mean_left_out = (values - values.mean()) * len(values) / (len(values) - 1)
    return float(1 - (left_out**2).sum() / (mean_left_out**2).sum())


def looked_at_again(first: pd.DataFrame, again: pd.DataFrame, effect: str = "MMoE") -> pd.DataFrame:
    """The extremes beside the same pairs on fresh seeds: what was chosen for being far out comes back a little.

    Columns: pair, target_1, target_2, effect, low, high, then again, again_low, again_high.
    """
    columns: Sequence[str] = ["pair", "effect", "low", "high"]
    second = pair_effects(again, effect)[list(columns)].rename(
        columns={"effect": "again", "low": "again_low", "high": "again_high"}
    )
    chosen = pair_effects(first[first["pair"].isin(again["pair"])], effect)
    return (
        chosen[["pair", "target_1", "target_2", *columns[1:]]].merge(second, on="pair").sort_values("effect")
    )
