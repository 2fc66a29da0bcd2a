"""Rows of an atlas in which MMoE's gain over Shared-Bottom falls with label correlation."""

from __future__ import annotations

import numpy as np
import pandas as pd

MODELS = ("Single-Task", "Shared-Bottom", "Deeper Shared-Bottom", "OMoE", "MMoE")
TARGETS = (
    *("sex is Male", "age at least 40", "income_50k is 50000+.", "education is Children", "race is White"),
    *(
        "vet_benefits is 2",
        "weeks_worked at least 1",
        "capital_gains at least 1",
        "year is 94",
        "union_member is No",
    ),
)


def pairs(count: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "seed": number,
            "target_1": TARGETS[number % len(TARGETS)],
            "target_2": TARGETS[(number // len(TARGETS) + number + 1) % len(TARGETS)],
            "label_correlation": float(rng.uniform(-0.9, 0.9)),
            "share_1": float(rng.uniform(0.01, 0.5)),
            "share_2": float(rng.uniform(0.5, 0.99)),
            "preset": "paper",
        }
        for number in range(count)
    ]
    return pd.DataFrame(rows)


def runs(facts: pd.DataFrame, seeds: int = 6, noise: float = 0.0005) -> pd.DataFrame:
    """MMoE gains 0.4 points at correlation 0 and nothing at 0.9; sharing gains 0.3 everywhere."""
    rng = np.random.default_rng(1)
    rows = []
    for fact in facts.to_dict("records"):
        level = rng.uniform(0.7, 0.9)
        for model in MODELS:
            gain = 0.003 * (model != "Single-Task")
            gain += 0.004 * (model == "MMoE") * (1 - abs(fact["label_correlation"]) / 0.9)
            for seed in range(seeds):
                one, other = level + gain + rng.normal(0, noise, 2)
                shared = model == "Shared-Bottom"
                rows.append(
                    {
                        "model": model,
                        "pair": fact["seed"],
                        "target_1": fact["target_1"],
                        "target_2": fact["target_2"],
                    }
                    | {"seed": seed, "test_auc_1": one, "test_auc_2": other, "preset": "paper"}
                    | {"gradient_cosine": rng.uniform(-1, 1) if shared else np.nan}
                    | {f"gradient_norm_{k}": rng.uniform(0.1, 1) if shared else np.nan for k in (1, 2)}
                    | {"gate_distance": rng.uniform(0, 1) if model == "MMoE" else np.nan}
                )
    return pd.DataFrame(rows)
