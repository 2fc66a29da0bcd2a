"""What went wrong in a training that ended well: towers, tasks, gates and experts that learned nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmoe_lib.frames.columns import warn
from mmoe_lib.frames.targets import MixedLoss, Target
from mmoe_lib.models.embeddings import Inputs
from mmoe_lib.training import Ensemble
from mmoe_lib.training.batches import parts_of, rebuilt

ALONE = 0.99
"""Mean weight of an expert above which its gate is called collapsed."""

UNREAD = 0.01
"""Mean weight of an expert below which a target is said not to read it."""

_ROWS, _FEWEST = 10_000, 30  # looked at; below these noise alone would be told


def watch(
    ensemble: Ensemble,
    targets: Sequence[Target],
    loss: MixedLoss,
    trained: Tensor,
    x: Inputs,
    y: Tensor,
    seen: str,
) -> None:
    """Warn, once a kind, of what a user would want to know before using the model.

    A run whose prediction is the same for all rows; a target that the runs do not predict better than its mean (or its
    shares) does, by two standard errors of the rows' losses; a gate that reads one expert alone; an expert that no
    target reads.

    Args:
        ensemble: The trained runs.
        targets: What they predict.
        loss: Of the training.
        trained: Labels of the training rows, from which the mean is taken.
        x: Encoded rows to look at; the first 10,000 are.
        y: Their labels.
        seen: What these rows are called, such as "held-out".
    """
    x, y = rebuilt(x, [part[:_ROWS] for part in parts_of(x)]), y[:_ROWS]
    if len(y) < 2:
        return
    outputs = ensemble.predict(x)  # (R, N, O)
    own = torch.tensor([target.outputs for target in targets]).cumsum(0).tolist()
    parts = [outputs[..., end - target.outputs : end] for target, end in zip(targets, own, strict=True)]
    constant = [(part.amax(dim=1) - part.amin(dim=1)).amax(dim=-1) < 1e-6 for part in parts]  # (R,) each
    dead = [
        f"{target.name!r} in {_of(runs)}"
        for target, runs in zip(targets, constant, strict=True)
        if runs.any()
    ]
    if dead:
        warn(
            f"the prediction is one constant for {', '.join(dead)}: its tower or what it reads is dead; lower "
            "learning_rate, or take other seeds"
        )
    flat = torch.cat([_constant(target, trained[:, task]) for task, target in enumerate(targets)])
    per_row = torch.vmap(loss)
    labels = y[:, None]
    base = per_row(flat.expand(len(y), 1, -1), labels)  # (N, K)
    gains = base - torch.stack([per_row(run[:, None], labels) for run in outputs]).mean(dim=0)
    vain = []
    for task, target in enumerate(targets):
        gain = gains[~y[:, task].isnan(), task]
        if len(gain) >= _FEWEST and float(gain.mean()) < 2 * float(gain.std()) / len(gain) ** 0.5:
            vain.append(f"{target.name!r}")
    if vain:
        warn(
            f"{', '.join(vain)}: not predicted better than by the training mean in {len(y):,} {seen} rows; see that "
            "the inputs tell of it, train longer or with another learning_rate, or predict it alone"
        )
    _watch_gates(ensemble, targets, x)


def _watch_gates(ensemble: Ensemble, targets: Sequence[Target], x: Inputs) -> None:
    try:
        weights = ensemble.gate_weights(x)  # (R, N, O, n)
    except TypeError:
        return
    means = weights.mean(dim=1)  # (R, O, n)
    if means.shape[-1] < 2:
        return
    names = [name for target in targets for name in target.names]
    alone = means.amax(dim=-1) > ALONE  # (R, O)
    if alone.any():
        told = ", ".join(
            f"{name!r} in {_of(alone[:, place])}" for place, name in enumerate(names) if alone[:, place].any()
        )
        warn(
            f"the gate of {told} reads one expert alone ({ALONE:.0%} or more): a mixture is not used; lower "
            "learning_rate, or take fewer experts"
        )
    unread = means.amax(dim=1) < UNREAD  # (R, n)
    if unread.any():
        # Expert 3 of one run is not expert 3 of another, so they are counted and not named.
        most, experts = int(unread.sum(dim=1).max()), unread.shape[1]
        warn(
            f"up to {most} of {experts} experts are read by no target in {_of(unread.any(dim=1))}: their gates' weights "
            f"are below {UNREAD:.0%}; take fewer experts, or lower learning_rate"
        )


def _of(runs: Tensor) -> str:
    return f"{int(runs.sum())} of {len(runs)} runs"


def _constant(target: Target, labels: Tensor) -> Tensor:
    """The outputs that predict the training mean, or the shares of the classes, (outputs,)."""
    labels = labels[~labels.isnan()]
    if target.binary:
        return torch.logit(labels.mean(), eps=1e-6)[None]
    if target.classes:
        counts = torch.bincount(labels.long(), minlength=len(target.classes))
        return (counts + 1e-6).log().to(labels.dtype)
    return labels.mean()[None]
