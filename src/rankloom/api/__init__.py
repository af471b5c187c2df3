"""What a person calls from Python; `import rankloom` hands these on, lazily."""

from rankloom.api.benching import ReadingSpeed, bench_data
from rankloom.api.describing import describe, describe_request, model_line
from rankloom.api.evaluating import evaluate
from rankloom.api.exporting import export
from rankloom.api.predicting import predict
from rankloom.api.result import RunFolder, TrainResult, load_result, new_model
from rankloom.api.run import Run, RunConfig, load_run, run_json_schema
from rankloom.api.training import fit, resume, train
from rankloom.artifact.verify import verify

__all__ = [
    "ReadingSpeed",
    "Run",
    "RunConfig",
    "RunFolder",
    "TrainResult",
    "bench_data",
    "describe",
    "describe_request",
    "evaluate",
    "export",
    "fit",
    "load_result",
    "load_run",
    "model_line",
    "new_model",
    "predict",
    "resume",
    "run_json_schema",
    "train",
    "verify",
]
