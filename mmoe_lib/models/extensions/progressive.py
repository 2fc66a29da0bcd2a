"""Experts that all tasks share beside experts of each task's own, in one level (CGC) or several (PLE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmoe_lib.models.layers import Experts, Towers, check_inputs, check_widths, linear


class ExtractionLevel(nn.Module):
    """Shared experts, experts of each task's own, and gates: what a level of PLE makes of the one below.

    Args:
        num_inputs: Width of what experts and gates read.
        num_tasks: K.
        shared_experts: Experts s that all tasks read, 0 or more.
        task_experts: Experts t of each task's own, 0 or more; a gate over one expert in all has nothing to choose.
        expert_widths: Units of the layers of each expert.
        feeds_shared: Whether shared experts of a next level need an input: then there is a gate for it.
        generator: Draws the initial weights.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        shared_experts: int,
        task_experts: int,
        expert_widths: Sequence[int],
        feeds_shared: bool,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_shared, self.num_own, self.num_outputs = shared_experts, task_experts, expert_widths[-1]
        self.shared = (
            Experts(num_inputs, shared_experts, expert_widths, generator) if shared_experts else None
        )
        self.own = nn.ModuleList(
            Experts(num_inputs, task_experts, expert_widths, generator)
            for _ in range(num_tasks if task_experts else 0)
        )
        # W_k in R^{(s + t) x d}, shared experts first
        self.gates = nn.ModuleList(
            linear(num_inputs, shared_experts + task_experts, generator, bias=False) for _ in range(num_tasks)
        )
        all_experts = shared_experts + num_tasks * task_experts
        self.shared_gate = linear(num_inputs, all_experts, generator, bias=False) if feeds_shared else None

    def forward(self, tasks: Sequence[Tensor], shared: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the next level, or the towers, read.

        Args:
            tasks: The K tasks' inputs, each (B, d).
            shared: The shared experts' input (B, d).

        Returns:
            The K tasks' mixes, each (B, h), and the shared one, which is `shared` itself where no gate mixes it.
        """
        said_shared = [] if self.shared is None else [self.shared(shared)]  # (B, s, h)
        said_own = [
            experts(x) for experts, x in zip(self.own, tasks, strict=bool(self.own))
        ]  # each (B, t, h)
        mixes = []
        for task, (gate, x) in enumerate(zip(self.gates, tasks, strict=True)):
            # w^k(x) = softmax(W_k x);  g^k(x) = w^k(x) S^k(x), where S^k are the shared and the task's own experts
            mixes.append(_mix(gate(x), [*said_shared, *said_own[task : task + 1]]))
        if self.shared_gate is not None:  # over the experts of all tasks too
            shared = _mix(self.shared_gate(shared), [*said_shared, *said_own])
        return mixes, shared

    def gate_weights(self, tasks: Sequence[Tensor]) -> Tensor:
        """The tasks' weights of all experts (B, K, s + K t), 0 at those of other tasks."""
        rows, last = [], len(self.gates) - 1
        for task, (gate, x) in enumerate(zip(self.gates, tasks, strict=True)):
            of_shared, of_own = torch.softmax(gate(x), dim=-1).split([self.num_shared, self.num_own], dim=-1)
            others = (task * self.num_own, (last - task) * self.num_own)
            rows.append(torch.cat([of_shared, F.pad(of_own, others)], dim=-1))
        return torch.stack(rows, dim=-2)


def _mix(logits: Tensor, said: Sequence[Tensor]) -> Tensor:
    """Experts' outputs in parts (B, n_1, h), (B, n_2, h).. by the softmax of logits (B, n_1 + n_2 ..) to (B, h)."""
    return (torch.softmax(logits, dim=-1).unsqueeze(-1) * torch.cat(list(said), dim=-2)).sum(dim=-2)


class PLE(nn.Module):
    """Progressive Layered Extraction: several levels of shared and own experts, then a tower a task.

    A task's gate mixes the shared experts and the task's own. At all levels but the last, a shared gate mixes all
    experts of the level into what the shared experts of the next level read. Without shared experts the tasks share
    nothing, and there is no shared gate.

    Source: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
    Personalized Recommendations", RecSys 2020, section 4.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        shared_experts: Experts s a level that all tasks read, 0 or more.
        task_experts: Experts t a level of each task's own, 0 or more; a gate over one expert in all has nothing to choose.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower.
        levels: Levels of experts; with one this is `CGC`.
        generator: Draws the initial weights.

    Raises:
        ValueError: If there are no experts, no tasks, no levels or a width of 0.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        shared_experts: int,
        task_experts: int,
        expert_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        levels: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_widths(num_inputs=num_inputs, num_tasks=num_tasks, expert_widths=expert_widths, levels=levels)
        if not expert_widths:
            raise ValueError("expert_widths is empty, expected at least one layer: an expert needs units")
        if min(shared_experts, task_experts) < 0 or shared_experts + task_experts < 1:
            raise ValueError(
                f"shared_experts is {shared_experts} and task_experts {task_experts}, expected 0 or more of each and "
                "at least one: a gate needs experts"
            )
        self.num_inputs, self.num_tasks = num_inputs, num_tasks
        self.levels = nn.ModuleList(
            ExtractionLevel(
                expert_widths[-1] if level else num_inputs,
                num_tasks,
                shared_experts,
                task_experts,
                expert_widths,
                shared_experts > 0 and level < levels - 1,
                generator,
            )
            for level in range(levels)
        )
        self.towers = Towers(num_tasks, expert_widths[-1], tower_widths, generator)

    def own_parameters(self) -> set[str]:
        """Names of the parameters that one task's loss alone moves, which a balancer leaves to that task.

        Towers are; so are a task's own experts, unless a shared gate reads them, which feeds all tasks. What lies
        below experts that are read by all is then moved by all.
        """
        names = {f"towers.{name}" for name, _ in self.towers.named_parameters()}
        alone = True  # whether the mix that a level makes for a task is read by this task alone
        for place, level in reversed(list(enumerate(self.levels))):
            parts = ["gates"] if alone else []
            alone = alone and (level.shared_gate is None or len(level.own) == 0)  # type: ignore[arg-type]
            parts += ["own"] if alone else []
            names |= {
                f"levels.{place}.{name}"
                for name, _ in level.named_parameters()
                if name.split(".")[0] in parts
            }
        return names

    def gate_weights(self, x: Tensor) -> Tensor:
        """How much of each expert of the last level each task reads: (B, d) to (B, K, s + K t), rows summing to 1.

        Shared experts come first, then those of task 1, of task 2 and so on; those of other tasks have 0.
        """
        check_inputs(x, self.num_inputs, next(self.parameters()))
        tasks, shared = [x] * self.num_tasks, x
        for level in self.levels[:-1]:
            tasks, shared = level(tasks, shared)
        weights: Tensor = self.levels[-1].gate_weights(tasks)  # type: ignore[operator]
        return weights

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, next(self.parameters()))
        tasks, shared = [x] * self.num_tasks, x
        for level in self.levels:
            tasks, shared = level(tasks, shared)  # K of (B, h), (B, h)
        # y_k = h_k(g^k(x))
        return self.towers(*tasks)  # (B, K)


class CGC(PLE):
    """Customized Gate Control: one level of shared experts and experts of each task's own.

    Without task experts this is `MMoE`; without shared ones the tasks share nothing.

    Source: Tang et al., RecSys 2020, section 4.1, where PLE is made of it.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        shared_experts: Experts s that all tasks read, 0 or more.
        task_experts: Experts t of each task's own, 0 or more; a gate over one expert in all has nothing to choose.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower.
        generator: Draws the initial weights.

    Raises:
        ValueError: If there are no experts, no tasks or a width of 0.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        shared_experts: int,
        task_experts: int,
        expert_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            num_inputs,
            num_tasks,
            shared_experts,
            task_experts,
            expert_widths,
            tower_widths,
            levels=1,
            generator=generator,
        )
