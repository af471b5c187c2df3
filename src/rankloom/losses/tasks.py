"""Links: what a task's raw output means, alone and at the end of a chain of conditions.

Binary: p = sigmoid(z). Positive: mean = softplus(z), or log(1 + y) ~ Normal(z, 1).
A task `given: t` predicts p(task | t); the chain's product is trained, evaluated and served
(Ma et al., "Entire Space Multi-Task Model", SIGIR 2018, arXiv:1804.07931, eq. 1).
Where training saw a share w of a task's negatives, a prediction takes z + log(w) for z, so that
p = p' / (p' + (1 - p') / w) (He et al., "Practical Lessons from Predicting Clicks on Ads at
Facebook", ADKDD 2014, section 6.3).

Shapes: B rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from rankloom.schema import BinaryTask, PositiveTask, Schema

LOG_HALF = -0.6931471805599453
MAX_LOG = 80.0
"""e to this is finite in fp32; a larger logarithm is taken for it."""


def predictions(logits: Mapping[str, Tensor], schema: Schema) -> dict[str, Tensor]:
    """Give what each task predicts at every row of the whole log: a probability, mean or median.

    Args:
        logits: Task -> (B,) raw outputs.
        schema: The tasks.

    Returns:
        Task -> (B,), float32 or wider.
    """
    return {name: _prediction(name, logits, schema) for name in schema.tasks}


def row_losses(task: str, logits: Mapping[str, Tensor], labels: Tensor, schema: Schema) -> Tensor:
    """Give one task's loss at every row, without mask or weight.

    Args:
        task: Its name.
        logits: Task -> (B,) raw outputs, of the whole chain of conditions.
        labels: (B,). The task's label.
        schema: The tasks.

    Returns:
        (B,), float32 or wider.
    """
    spec = schema.tasks[task]
    own = _wide(logits[task])
    chain = schema.chain(task)[1:] if spec.loss == "product" else []
    if isinstance(spec, PositiveTask):
        if spec.link == "log_normal":
            return (own - labels.log1p()).square()
        log_mean = _log_softplus(own)
        for name in chain:
            log_mean = log_mean + F.logsigmoid(_wide(logits[name]))
        # Poisson deviance up to a term of the label alone: its optimum keeps sums calibrated.
        return log_mean.exp() - labels * log_mean
    if not chain:
        return F.binary_cross_entropy_with_logits(own, labels, reduction="none")
    log_p = F.logsigmoid(own)
    for name in chain:
        log_p = log_p + F.logsigmoid(_wide(logits[name]))
    return -(labels * log_p + (1 - labels) * log_one_minus_exp(log_p))


def log_one_minus_exp(x: Tensor) -> Tensor:
    """Give log(1 - exp(x)) for x < 0 without losing digits near 0 or far below it."""
    x = x.clamp(max=-1e-7)
    near = x > LOG_HALF
    # Each branch sees only arguments it is exact for, so that neither gives a NaN gradient.
    close = (-x.where(near, LOG_HALF).expm1()).log()
    far = (-x.where(~near, LOG_HALF).exp()).log1p()
    return close.where(near, far)


def _prediction(task: str, logits: Mapping[str, Tensor], schema: Schema) -> Tensor:
    spec = schema.tasks[task]
    own = _corrected(task, logits, schema)
    if not isinstance(spec, PositiveTask):
        value = own.sigmoid()
    elif spec.link == "softplus":
        value = F.softplus(own)
    else:
        value = own.clamp(max=MAX_LOG).expm1().clamp(min=0)
    for name in schema.chain(task)[1:]:
        value = value * _corrected(name, logits, schema).sigmoid()
    return value


def _corrected(task: str, logits: Mapping[str, Tensor], schema: Schema) -> Tensor:
    """Give a task's raw output for the whole log, of which training may have seen a sample."""
    spec, own = schema.tasks[task], _wide(logits[task])
    return own + math.log(spec.negatives_kept) if isinstance(spec, BinaryTask) else own


def _log_softplus(own: Tensor) -> Tensor:
    # softplus(z) ~ exp(z) far below zero, where its own logarithm would be -inf.
    return torch.where(own < -15, own, F.softplus(own.clamp(min=-15)).log())


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
