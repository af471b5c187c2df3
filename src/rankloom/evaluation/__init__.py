"""Evaluation: every metric exact, overall and by slice, with intervals."""

from rankloom.evaluation.evaluate import evaluate_model
from rankloom.evaluation.predict import Scorer
from rankloom.evaluation.result import Evaluation, EvaluationConfig, TaskMetrics

__all__ = ["Evaluation", "EvaluationConfig", "Scorer", "TaskMetrics", "evaluate_model"]
