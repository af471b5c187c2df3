"""The training loop: steps, log, evaluation, checkpoints, in this order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rankloom.data.batch import Batch
from rankloom.data.reader import LogReader
from rankloom.errors import ConfigError, RankLoomError
from rankloom.evaluation import Evaluation
from rankloom.layers.memory import memory_tables
from rankloom.losses import Loss
from rankloom.models import Model
from rankloom.models.cost import training_flops
from rankloom.ops.device import autocast_for, choose_device, choose_precision, matmul_rate
from rankloom.training.checkpoint import Checkpoints, restore
from rankloom.training.config import PlateauSchedule, TrainingConfig
from rankloom.training.hoisting import network_to_train
from rankloom.training.hooks import Hook, StepRecord
from rankloom.training.interrupt import interrupt_flag
from rankloom.training.monitor import is_better
from rankloom.training.optimizer import dense_optimizer, lr_factor
from rankloom.training.sparse import sparse_optimizer
from rankloom.training.step import StepResult, train_step
from rankloom.training.window import Window


@dataclass
class TrainerState:
    """What a resumed training must know beside weights, optimizers and random state."""

    step: int = 0
    """Steps made."""
    epoch: int = 0
    """Epoch under way, counted from 0."""
    position: int = 0
    """Requests of it that are done."""
    best_value: float | None = None
    """Best validation metric so far."""
    best_step: int = 0
    """When it was reached."""
    evaluations_without_gain: int = 0
    """Evaluations since then."""
    plateau_ratio: float = 1.0
    """What such evaluations have left of the learning rates, under a plateau schedule."""
    is_finished: bool = False
    """Whether nothing is left to train."""
    num_records: int = 0
    """Records of the log so far."""
    window: dict[str, Any] = field(default_factory=dict)
    """Sums of the record under way, when a stop came between two."""


@dataclass(frozen=True)
class TrainOutcome:
    """How a training ended."""

    state: TrainerState
    """Where it stands."""
    is_interrupted: bool
    """Whether Ctrl-C ended it."""
    checkpoint: Path
    """The last checkpoint."""
    evaluation: Evaluation | None
    """The last evaluation on the validation log."""


class Trainer:
    """Trains a model on a log.

    Args:
        model: What is trained; moved to the device.
        config: How.
        reader: The training log.
        folder: The run folder; `checkpoints/` stands in it.
        hooks: Are told what happens; given the state that training starts from.
        evaluate: Evaluates the validation log, or none.
        metric: `task/metric` of it that decides which checkpoint is the best.

    Raises:
        ConfigError: Device, precision or early stopping cannot be had.
        HoistError: `hoist` is true, and the network cannot be hoisted.
    """

    def __init__(
        self,
        model: Model,
        config: TrainingConfig,
        reader: LogReader,
        folder: Path,
        *,
        hooks: Callable[[TrainerState], Sequence[Hook]] = lambda _: (),
        evaluate: Callable[[], Evaluation] | None = None,
        metric: str = "",
    ) -> None:
        if isinstance(config.schedule, PlateauSchedule) and evaluate is None:
            raise ConfigError(
                "training.schedule: plateau needs a validation log. Set data.valid or use cosine."
            )
        if config.early_stopping and evaluate is None:
            raise ConfigError(
                "training.early_stopping: needs a validation log. Set data.valid or leave it out."
            )
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.model = model.to(self.device).train()
        self.network = network_to_train(
            model, hoist=config.hoist, is_grouped=reader.decoder.layout == "grouped"
        )
        self.config = config
        self.reader = reader
        self.make_hooks = hooks
        self.evaluate = evaluate
        self.loss_fn = Loss(model.schema, auxiliary_weights=model.network.auxiliary_weights)
        self.dense = dense_optimizer(model.network, config.dense)
        self.sparse = sparse_optimizer(model.sparse_tables(), config.sparse)
        self.memories = memory_tables(model.network)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.state = TrainerState()
        self.window = Window()
        self.metric = metric
        self.autocast = autocast_for(self.precision, self.device)
        self.total_steps = config.epochs * -(-reader.rows_per_epoch // config.batch_size)
        self.peak = matmul_rate(self.precision, self.device)
        self.flops_per_row = 0.0

    def resume(self) -> bool:
        """Put the last checkpoint in place; give whether there is one."""
        folder = self.checkpoints.path("last")
        if folder is None:
            return False
        self.state = TrainerState(**restore(folder, self.model, self.dense, self.sparse))
        self.window = Window.from_dict(self.state.window, self.device)
        self._set_rates(max(0, self.state.step - 1))
        return True

    def run(self) -> TrainOutcome:
        """Train until the last epoch, early stopping or Ctrl-C; a checkpoint stands at the end."""
        hooks: Sequence[Hook] = ()
        evaluation: Evaluation | None = None
        if self.state.step == 0:
            torch.manual_seed(self.config.seed)
        try:
            with interrupt_flag() as is_interrupted:
                hooks = self.make_hooks(self.state)
                while not self.state.is_finished and not is_interrupted():
                    if self._train_epoch(hooks, is_interrupted):
                        evaluation = self._end_epoch(hooks) or evaluation
                checkpoint = self.checkpoints.path("last")
                if checkpoint is None or not self.state.is_finished:
                    checkpoint = self._save()
                return TrainOutcome(self.state, is_interrupted(), checkpoint, evaluation)
        finally:
            for hook in hooks:
                hook.close()

    def _train_epoch(self, hooks: Sequence[Hook], is_interrupted: Callable[[], bool]) -> bool:
        """Make the epoch's remaining steps; give whether it came to its end."""
        config, state = self.config, self.state
        every = config.checkpoint_every_steps
        self.window.restart_clock()
        # From the generator's `with` the reading threads end with the loop, however it ends.
        with self.reader.batches(state.epoch, state.position) as batches:
            for batch, position in batches:
                batch = batch.to(self.device)
                if not self.flops_per_row:
                    self.flops_per_row = training_flops(
                        self.model, self.loss_fn, batch, network=self.network
                    )
                self.window.add(self._step(batch), batch.num_rows)
                state.step += 1
                state.position = position
                is_due = every is not None and state.step % every == 0
                if is_due or self.window.steps == config.log_every_steps:
                    self._log(hooks)
                if is_due:
                    self._save()
                    self.window.restart_clock()
                if is_interrupted():
                    return False
        self._log(hooks)
        return True

    def _step(self, batch: Batch) -> StepResult:
        self._set_rates(self.state.step)
        result = train_step(
            self.model.embedder,
            self.network,
            self.loss_fn,
            batch,
            dense=self.dense,
            sparse=self.sparse,
            max_grad_norm=self.config.max_grad_norm,
            autocast=self.autocast,
        )
        for memory in self.memories:
            memory.count(result.choices[memory.name])
        return result

    def _set_rates(self, step: int) -> None:
        factor = lr_factor(
            self.config.schedule, step, self.total_steps, plateau_ratio=self.state.plateau_ratio
        )
        for group in self.dense.param_groups:
            group["lr"] = self.config.dense.lr * factor
        self.sparse.lr_factor = factor
        self.sparse.num_steps = step

    def _end_epoch(self, hooks: Sequence[Hook]) -> Evaluation | None:
        """Evaluate, decide whether to go on, and save."""
        state, config = self.state, self.config
        is_last = state.epoch + 1 >= config.epochs
        evaluation = None
        is_best = self.evaluate is None
        if self.evaluate and (is_last or not (state.epoch + 1) % config.evaluate_every_epochs):
            evaluation = self._evaluated(self.evaluate)
            for hook in hooks:
                hook.on_evaluation(evaluation, step=state.step)
            state.num_records += 1
            is_best = self._compare(evaluation.value(self.metric))
            stopping = config.early_stopping
            if stopping and state.evaluations_without_gain >= stopping.patience:
                is_last = True
        state.epoch += 1
        state.position = 0
        state.is_finished = is_last
        self._save(best=is_best)
        return evaluation

    def _evaluated(self, evaluate: Callable[[], Evaluation]) -> Evaluation:
        try:
            return evaluate()
        except (RankLoomError, KeyboardInterrupt):
            # A bad row of the validation log must not cost the epoch; --resume comes back here.
            self._save()
            raise
        finally:
            self.model.train()

    def _compare(self, value: float) -> bool:
        """Note a validation metric; give whether it is the best so far."""
        state = self.state
        if is_better(self.metric, value, state.best_value):
            state.best_value, state.best_step = value, state.step
            state.evaluations_without_gain = 0
            return True
        state.evaluations_without_gain += 1
        schedule = self.config.schedule
        if isinstance(schedule, PlateauSchedule):
            state.plateau_ratio = max(state.plateau_ratio * schedule.factor, schedule.min_ratio)
        return False

    def _log(self, hooks: Sequence[Hook]) -> None:
        """Tell the hooks the means of the window, if it has any steps, and begin a new one."""
        window = self.window
        if window.losses is None:
            return
        rows_per_s = window.rows / (time.perf_counter() - window.began)
        flops_per_s = rows_per_s * self.flops_per_row
        losses, auxiliary = window.mean_losses()
        for memory in self.memories:
            auxiliary |= {f"{memory.name}_{key}": one for key, one in memory.usage().items()}
        record = StepRecord(
            step=self.state.step,
            epoch=self.state.epoch,
            progress=self.state.position / max(1, self.reader.num_requests),
            losses=losses,
            auxiliary=auxiliary,
            lr_dense=self.dense.param_groups[0]["lr"],
            lr_sparse=self.config.sparse.lr * self.sparse.lr_factor,
            grad_norm=None if window.grad_norm is None else float(window.grad_norm),
            rows_per_s=rows_per_s,
            flops_per_s=flops_per_s,
            matmul_share=flops_per_s / self.peak,
        )
        for hook in hooks:
            hook.on_step(record)
        self.state.num_records += 1
        self.window = Window()

    def _save(self, *, best: bool = False) -> Path:
        self.state.window = self.window.to_dict()
        return self.checkpoints.save(
            self.model,
            self.dense,
            self.sparse,
            step=self.state.step,
            state=asdict(self.state),
            best=best,
        )
