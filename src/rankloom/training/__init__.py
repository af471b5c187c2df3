"""Training: the step, the loop around it, optimizers, checkpoints and the log."""

from rankloom.training.config import TrainingConfig
from rankloom.training.trainer import Trainer, TrainerState, TrainOutcome

__all__ = ["TrainOutcome", "Trainer", "TrainerState", "TrainingConfig"]
