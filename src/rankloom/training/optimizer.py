"""The dense optimizer and the learning-rate schedules."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW, Optimizer

from rankloom.layers.memory import memory_tables
from rankloom.training.config import AdamWConfig, ConstantSchedule, CosineSchedule, PlateauSchedule


def dense_optimizer(network: nn.Module, config: AdamWConfig) -> Optimizer:
    """Build AdamW with two groups: matrices decay, vectors (norms, biases) do not.

    Memories' tables are left to the sparse optimizer.
    """
    tables = {id(table.weight) for table in memory_tables(network)}
    parameters = [p for p in network.parameters() if p.requires_grad and id(p) not in tables]
    # A per-token bias is (T, D): what decays is what multiplies, so names decide and not ranks.
    is_bias = {
        id(p) for name, p in network.named_parameters() if name.endswith("bias") or p.ndim < 2
    }
    groups = [
        {
            "params": [p for p in parameters if id(p) not in is_bias],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for p in parameters if id(p) in is_bias], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def lr_factor(
    schedule: ConstantSchedule | CosineSchedule | PlateauSchedule,
    step: int,
    total_steps: int,
    *,
    plateau_ratio: float = 1.0,
) -> float:
    """Give the factor of the peak learning rates.

    Args:
        schedule: Constant or cosine, with warm-up.
        step: Steps already made.
        total_steps: Steps of the whole training.
        plateau_ratio: What evaluations without improvement have left of the peak.
    """
    warmup_steps = schedule.warmup_steps
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if not isinstance(schedule, CosineSchedule):
        return plateau_ratio
    left = max(1, total_steps - warmup_steps)
    progress = min(1.0, (step - warmup_steps) / left)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.final_ratio + (1 - schedule.final_ratio) * cosine
