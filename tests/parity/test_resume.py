"""A training that was stopped and resumed is the one that was not, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.small import (
    STEPS_PER_EPOCH,
    everything_in,
    small_train,
    small_values,
)

from rankloom.api import resume
from rankloom.api import training as api_training
from rankloom.api.result import RunFolder
from rankloom.errors import DataError
from rankloom.training import trainer
from rankloom.training.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("without_extras")

ADAM = {"training.sparse": {"kind": "adam", "lr": 0.01, "weight_decay": 0.01, "l2": 0.01}}
ADAGRAD = {"training.sparse": {"kind": "rowwise_adagrad", "lr": 0.5}}
COSINE = {"training.schedule": {"kind": "cosine", "warmup_steps": 4}}
BATCH_NORM = {"model.interaction.norm": "batch"}
PLATEAU = {"training.schedule": {"kind": "plateau", "factor": 0.5}, "training.epochs": 4}
TOKENS = {
    "model.interaction": {"kind": "tokenmixer_large", "num_layers": 4, "dropout": 0.1},
    "model.tokenization": {"kind": "per_feature", "token_dim": 14},
    "model.sequence": {"history": {"kind": "masked_mean"}},
}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value, name


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have Ctrl-C come during a step."""
    made = 0
    real = trainer.train_step

    def stopping(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        if made == step:
            signal.raise_signal(signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(trainer, "train_step", stopping)


def resumed(folder: Path) -> list[str]:
    lines: list[str] = []
    # A new process would know nothing of the random state.
    torch.manual_seed(99)
    assert not resume(folder, printer=lines.append).is_interrupted
    return lines


@pytest.mark.parametrize("layout", ["flat", "grouped"])
@pytest.mark.parametrize(
    "overrides",
    [
        ADAM | COSINE,
        ADAGRAD | BATCH_NORM | PLATEAU | {"training.checkpoint_every_steps": 4},
        TOKENS,
    ],
    ids=["adam", "adagrad", "tokens"],
)
def test_stopped_within_an_epoch(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    overrides: dict[str, Any],
) -> None:
    values = small_values(log, layout=layout)
    epochs = overrides.get("training.epochs", 2)
    stop = (epochs - 1) * STEPS_PER_EPOCH + 6
    whole, _ = small_train(values, tmp_path / "whole", overrides)
    with monkeypatch.context() as patch:
        stop_after(patch, stop)
        stopped, lines = small_train(values, tmp_path / "parts", overrides)
    assert stopped.is_interrupted
    assert lines[-1].startswith(f"stopped   step {stop} is saved in ")
    assert lines[-1].endswith(f"rankloom train --resume {tmp_path / 'parts'}")
    assert f"resumed   {tmp_path / 'parts'} at step {stop}" in resumed(tmp_path / "parts")
    expected = everything_in(whole.folder.path)
    assert expected["last/state"]["step"] >= epochs * STEPS_PER_EPOCH
    assert len([r for r in expected["metrics"] if r["kind"] == "evaluation"]) == epochs
    if "training.epochs" in overrides:
        assert expected["last/state"]["plateau_ratio"] < 1
    assert_same(everything_in(tmp_path / "parts"), expected)


@pytest.mark.parametrize("layout", ["flat", "grouped"])
def test_stopped_within_an_epoch_of_sampled_negatives(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    values = small_values(log, layout=layout)
    unified = {"model.embedding.unified": {"hash_buckets": 60, "lookups": 2}}
    sampled = {"data.keep_negatives": {"task": "like", "ratio": 0.3}, **unified, **COSINE}
    whole, _ = small_train(values, tmp_path / "whole", sampled)
    expected = everything_in(whole.folder.path)
    steps = expected["last/state"]["step"]
    assert steps < 2 * STEPS_PER_EPOCH - 4
    with monkeypatch.context() as patch:
        stop_after(patch, steps - 3)
        stopped, _ = small_train(values, tmp_path / "parts", sampled)
    assert stopped.is_interrupted
    resumed(tmp_path / "parts")
    assert_same(everything_in(tmp_path / "parts"), expected)


def test_stopped_again_and_again(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = small_values(log)
    whole, _ = small_train(values, tmp_path / "whole", COSINE)
    parts = tmp_path / "parts"
    # After one step, at a record of the log, at the end of an epoch, and at the very end.
    for at, steps in enumerate((1, 4, 8, 6, 7)):
        with monkeypatch.context() as patch:
            stop_after(patch, steps)
            torch.manual_seed(98)
            stopped = resume(parts) if at else small_train(values, parts, COSINE)[0]
        assert stopped.is_interrupted
    resumed(parts)
    assert_same(everything_in(parts), everything_in(whole.folder.path))


def test_a_finished_training_has_nothing_left_to_do(log: Path, tmp_path: Path) -> None:
    result, _ = small_train(small_values(log), tmp_path / "run")
    before = everything_in(result.folder.path)
    files = sorted(path for path in result.folder.path.rglob("*") if path.is_file())
    lines = resumed(result.folder.path)
    assert f"finished  {tmp_path / 'run'} at step 26: nothing is left to train" in lines
    assert_same(everything_in(result.folder.path), before)
    assert sorted(path for path in result.folder.path.rglob("*") if path.is_file()) == files


def test_killed_between_an_evaluation_and_its_checkpoint(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {"training.checkpoint_every_steps": STEPS_PER_EPOCH}
    whole, _ = small_train(small_values(log), tmp_path / "whole", overrides)
    real, saved = Checkpoints.save, 0

    def killed(*args: Any, **kwargs: Any) -> Path:
        nonlocal saved
        saved += 1
        if saved == 2:
            raise RuntimeError("killed")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(RuntimeError, match="killed"):
            small_train(small_values(log), tmp_path / "parts", overrides)
    # The evaluation stands in the log, and is made again.
    resumed(tmp_path / "parts")
    assert_same(everything_in(tmp_path / "parts"), everything_in(whole.folder.path))


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_an_evaluation_that_fails_does_not_cost_the_epoch(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    whole, _ = small_train(small_values(log), tmp_path / "whole")

    def failing(*args: Any, **kwargs: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(api_training, "evaluate_split", failing)
        with pytest.raises(error):
            small_train(small_values(log), tmp_path / "parts")
    assert RunFolder(tmp_path / "parts").checkpoints.path("last") is not None
    assert f"resumed   {tmp_path / 'parts'} at step {STEPS_PER_EPOCH}" in resumed(
        tmp_path / "parts"
    )
    assert_same(everything_in(tmp_path / "parts"), everything_in(whole.folder.path))


def test_another_seed_is_another_training(log: Path, tmp_path: Path) -> None:
    """The comparison above can fail."""
    one, _ = small_train(small_values(log), tmp_path / "one", {"training.epochs": 1})
    other, _ = small_train(
        small_values(log), tmp_path / "other", {"training.epochs": 1, "training.seed": 4}
    )
    with pytest.raises(AssertionError):
        assert_same(everything_in(one.folder.path), everything_in(other.folder.path))
