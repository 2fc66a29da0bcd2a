"""What chapter 6 compares, each at the size of the paper's synthetic MMoE: 8 experts of 16 units, towers of 8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmoe_lib.frames import MODELS
from mmoe_lib.models import MMoE
from mmoe_lib.models.extensions import GateDropoutMMoE, RegularisedMMoE

EXPERTS, UNITS, TOWERS = 8, 16, (8,)
DROPOUT = 0.1
"""Share of gate weights dropped, as in Zhao et al. (RecSys 2019)."""
STRENGTHS = (0.01, 0.1)
"""Of each regulariser: weak and strong beside losses of 0.05 to 0.4."""


@dataclass(frozen=True)
class Extension:
    """A model of chapter 6.

    Attributes:
        family: "baseline", "gates", "regularised", "layers", or "control": MMoE with another layer, which tells what
            depth alone does.
        build: Of one run; call it with (num_inputs, num_tasks, generator=...).
        source: Where it was proposed.
    """

    family: str
    build: partial[Any]
    source: str

    @property
    def own_rate(self) -> bool:
        """Whether its learning rate is tuned; a regularised MMoE takes MMoE's, so that only the regulariser differs."""
        return self.family != "regularised"


_mixture: dict[str, Any] = {"num_experts": EXPERTS, "expert_widths": (UNITS,), "tower_widths": TOWERS}
_deeper: dict[str, Any] = {**_mixture, "expert_widths": (UNITS, UNITS)}
_OURS = "a common regulariser, not in the paper"


def _regularised() -> dict[str, Extension]:
    found = {}
    for name, argument, sign in (
        ("Sharper gates", "entropy", 1),
        ("Flatter gates", "entropy", -1),
        ("Even load", "balance", 1),
        ("Unlike experts", "orthogonality", 1),
    ):
        for strength in STRENGTHS:
            own: dict[str, Any] = {argument: sign * strength}
            build = partial(RegularisedMMoE, **_mixture, **own)
            found[f"{name} {strength:g}"] = Extension("regularised", build, _OURS)
    return found


EXTENSIONS: Mapping[str, Extension] = {
    **{
        name: Extension("baseline", MODELS[name], "MMoE paper")
        for name in ("Single-Task", "Shared-Bottom", "OMoE", "MMoE")
    },
    "Attention gates": Extension("gates", MODELS["Attention gates"], "Vaswani et al. (2017), as a gate"),
    "Transformer over experts": Extension(
        "gates", MODELS["Transformer over experts"], "Vaswani et al. (2017), over experts"
    ),
    "Top-2 gates": Extension("gates", MODELS["Top-2 gates"], "Shazeer et al. (2017)"),
    "DSelect-2": Extension("gates", MODELS["DSelect-2"], "Hazimeh et al. (2021)"),
    "Gate dropout": Extension(
        "gates", partial(GateDropoutMMoE, **_mixture, dropout=DROPOUT), "Zhao et al. (2019)"
    ),
    **_regularised(),
    "Deeper MMoE": Extension("control", partial(MMoE, **_deeper), "MMoE paper, experts of two layers"),
    "CGC": Extension("layers", MODELS["CGC"], "Tang et al. (2020)"),
    "PLE": Extension("layers", MODELS["PLE"], "Tang et al. (2020)"),
}
"""By name, in the order of the tables."""


def extension(name: str) -> Extension:
    """The extension of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in EXTENSIONS:
        raise ValueError(f"model is {name!r}, expected one of {', '.join(EXTENSIONS)}: choose one of these")
    return EXTENSIONS[name]


def noise_columns(name: str, num_tasks: int) -> int:
    """Columns of random numbers that a model's inputs carry while it trains: those of gate dropout."""
    return num_tasks * EXPERTS if name == "Gate dropout" else 0
