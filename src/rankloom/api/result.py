"""A trained run: its folder, its model, and what it was fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankloom.api.run import Run, load_run
from rankloom.data.transforms import Transforms, table_sizes
from rankloom.errors import CheckpointError
from rankloom.evaluation import Evaluation
from rankloom.models import Model, build_model
from rankloom.training.checkpoint import Checkpoints, load_weights


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of a run stand."""

    path: Path

    @property
    def run_file(self) -> Path:
        """The resolved run file; written first."""
        return self.path / "run.yaml"

    @property
    def transforms(self) -> Path:
        """Vocabularies and statistics."""
        return self.path / "transforms"

    @property
    def metrics(self) -> Path:
        """The log, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def evaluation(self) -> Path:
        """What the last `evaluate` found, by split."""
        return self.path / "evaluation.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints."""
        return Checkpoints(self.path / "checkpoints")


@dataclass(frozen=True)
class TrainResult:
    """A trained model with everything it takes to score raw rows."""

    folder: RunFolder
    """Where it was trained."""
    run: Run
    """The run file."""
    model: Model
    """The best checkpoint's weights; the last one's without a validation log."""
    transforms: Transforms
    """What maps raw values to rows of tables."""
    evaluation: Evaluation | None = None
    """The last evaluation on the validation log, when it was trained just now."""
    is_interrupted: bool = False
    """Whether Ctrl-C ended the training."""

    def __str__(self) -> str:
        return str(self.evaluation or self.folder.path)


def load_result(folder: str | Path) -> TrainResult:
    """Open a run folder with its best checkpoint.

    Raises:
        CheckpointError: There is no checkpoint, or it is damaged.
        ConfigError: The folder has no run file.
    """
    at = RunFolder(Path(folder))
    run = load_run(at.run_file)
    checkpoint = at.checkpoints.path("best") or at.checkpoints.path("last")
    if checkpoint is None:
        raise CheckpointError(f"{at.path}: has no checkpoint yet. Train it first, or --resume it.")
    transforms = Transforms.load(at.transforms)
    model = new_model(run, transforms)
    load_weights(checkpoint, model)
    return TrainResult(at, run, model.train(False), transforms)


def new_model(run: Run, transforms: Transforms) -> Model:
    """Build a run's model with its initial values."""
    return build_model(
        run.config.model,
        run.schema,
        table_sizes=table_sizes(run.schema, transforms),
        statistics=transforms.statistics,
        seed=run.config.training.seed,
    )
