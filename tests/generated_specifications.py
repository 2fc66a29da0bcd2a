"""Rows of a specification curve in which one choice decides."""

from __future__ import annotations

import numpy as np
import pandas as pd

from companion.results.specifications import CHOICES, RIVALS


def made(lead_of_second: float = 0.004, runs: int = 6) -> pd.DataFrame:
    """Rows in which MMoE leads by `lead_of_second` under the second encoding, and by nothing under the first."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(16):
        choices = {name: 1 + number // 2**place % 2 for place, name in enumerate(CHOICES)}
        for model in ("MMoE", *RIVALS):
            lead = lead_of_second * (model == "MMoE" and choices["variant"] == 2)
            for seed in range(runs):
                auc = 0.94 + lead + rng.normal(0, 0.0005)
                rows.append(
                    {
                        "group": "income",
                        "specification": number,
                        "model": model,
                        "seed": seed,
                        "learning_rate": 0.01,
                    }
                    | choices
                    | {"test_main_auc": auc}
                )
    return pd.DataFrame(rows)
