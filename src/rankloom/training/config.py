"""The `training` section of a run file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rankloom.config import Config, OneOf

Fraction = Annotated[float, Field(ge=0, lt=1)]


class AdamWConfig(Config):
    """Dense parameters by AdamW (Loshchilov and Hutter, arXiv:1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    """Chooses this kind."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the two running means."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the second mean."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled decay of matrices; norms and biases are left alone."""


class TableOptimizerConfig(Config):
    """What may differ from table to table."""

    lr: PositiveFloat | None = None
    """Peak learning rate; default: the optimizer's."""
    weight_decay: NonNegativeFloat | None = None
    """Decay of the rows used in a step; default: the optimizer's."""
    l2: NonNegativeFloat | None = None
    """L2 penalty of the rows used in a step; default: the optimizer's."""


class TableOptimizerBase(Config):
    """What every optimizer of tables states."""

    eps: PositiveFloat = 1e-8
    """Added to the root that a step is divided by."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled decay of the rows used in a step, per step."""
    l2: NonNegativeFloat = 0.0
    """L2 penalty: this times a row's values, for each step since its last use, joins its gradient
    when it is used. On a small log it is what keeps tables from learning it by heart."""
    tables: dict[str, TableOptimizerConfig] = {}
    """Table -> what differs from the above."""


class RowwiseAdagradConfig(TableOptimizerBase):
    """Table rows by Adagrad with one accumulator a row: one number beside each row."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    """Chooses this kind."""
    lr: PositiveFloat = 0.05
    """Peak learning rate."""
    initial_accumulator: NonNegativeFloat = 0.0
    """What each accumulator starts from."""


class SparseAdamConfig(TableOptimizerBase):
    """Table rows by Adam, touched only when used; two more numbers for each of a row's."""

    kind: Literal["adam"] = "adam"
    """Chooses this kind."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the two running means, per use of the row."""


class ConstantSchedule(Config):
    """The peak learning rate, after the warm-up."""

    kind: Literal["constant"] = "constant"
    """Chooses this kind."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises from zero."""


class CosineSchedule(Config):
    """Half a cosine from the peak to `final_ratio` of it at the last step, after the warm-up."""

    kind: Literal["cosine"] = "cosine"
    """Chooses this kind."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises from zero."""
    final_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the peak at the end."""


class PlateauSchedule(Config):
    """The peak, cut each time the monitored validation metric has not improved."""

    kind: Literal["plateau"] = "plateau"
    """Chooses this kind."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises from zero."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the rates are multiplied by at each evaluation without improvement."""
    min_ratio: Annotated[float, Field(ge=0, lt=1)] = 1e-3
    """Share of the peak below which they are not cut."""


class EarlyStoppingConfig(Config):
    """Stop when the validation metric has not improved for some evaluations."""

    metric: str | None = None
    """`task/metric`, such as `like/auc`; default: the first task's AUC, or its log loss or mean
    absolute error where it has no AUC."""
    patience: PositiveInt = 1
    """Evaluations without improvement before the stop."""


DenseOptimizerConfig = Annotated[AdamWConfig, OneOf(AdamWConfig, default="adamw")]
SparseOptimizerConfig = Annotated[
    RowwiseAdagradConfig | SparseAdamConfig,
    OneOf(RowwiseAdagradConfig, SparseAdamConfig, default="rowwise_adagrad"),
]
ScheduleConfig = Annotated[
    ConstantSchedule | CosineSchedule | PlateauSchedule,
    OneOf(ConstantSchedule, CosineSchedule, PlateauSchedule, default="constant"),
]


class TrainingConfig(Config):
    """How a model is trained."""

    epochs: PositiveInt = 1
    """Passes over the training log."""
    batch_size: PositiveInt = 4096
    """Rows in a batch; whole requests only."""
    dense: DenseOptimizerConfig = AdamWConfig()
    """Optimizer of everything but tables."""
    sparse: SparseOptimizerConfig = RowwiseAdagradConfig()
    """Optimizer of the tables."""
    schedule: ScheduleConfig = ConstantSchedule()
    """Factor of both learning rates over the steps."""
    max_grad_norm: PositiveFloat | None = 10.0
    """Norm to which the dense gradient is clipped; null for none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the device has units for it, fp32 elsewhere."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where there is one."""
    hoist: bool | None = None
    """Compute what depends on user and request alone once for each request, at the same losses;
    user-side dropout is then drawn once for each request, too. null: where the log is grouped and
    the network can be hoisted (BatchNorm and Dice mix rows, and cannot)."""
    seed: NonNegativeInt = 0
    """Of initial values, order and dropout."""
    shuffle: bool = True
    """Shuffle row groups and, within a buffer, requests, anew each epoch."""
    buffer_rows: PositiveInt = 262_144
    """Rows of the shuffle buffer."""
    read_ahead: PositiveInt = 4
    """Batches prepared ahead of the one in training."""
    early_stopping: EarlyStoppingConfig | None = None
    """Stop when validation no longer improves; null trains all epochs."""
    evaluate_every_epochs: PositiveInt = 1
    """Epochs between evaluations on the validation log."""
    checkpoint_every_steps: PositiveInt | None = 1000
    """Steps between checkpoints, beside the one after each epoch; null for those only."""
    log_every_steps: PositiveInt = 50
    """Steps between lines of the log."""
    warm_start: str | None = None
    """Run folder whose best weights to start from; tables are matched by name and their rows by
    key, so that the schema may have grown. Dense parameters follow where the features are the same,
    or stand in semantic groups."""
