"""DCN-V2 in FuxiCTR: its feature processor, Parquet loader and fit().

    python -m benchmarks.peers.fuxictr_dcnv2 TRAIN.parquet VALID.parquet

The model is put together from the library's own layers as in its model zoo, whose ranking models
are not in the package.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import polars as pl
import ray
import torch
from fuxictr.features import FeatureMap
from fuxictr.preprocess import FeatureProcessor, build_dataset
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything

from benchmarks.criteo_like import DENSE_COLUMNS, SPARSE_COLUMNS
from benchmarks.peers.protocol import (
    Stopwatch,
    Task,
    make_report,
    parse_arguments,
    print_report,
)

NOTES = (
    "parallel structure, full-rank cross layers, no dropout, no batch normalization (its defaults)",
    "each dense value gets an embedding too (its default): the input is 624 wide, not 429",
    "fit() clips the gradient at norm 10 (its default)",
    "the evaluation and the saved weights at the end of fit() are not in the clock",
    "help: log1p before its MinMaxScaler, as the others get",
)
DATASET = "criteo_like"


class LogProcessor(FeatureProcessor):
    """The library's processor with the hook its Criteo recipes use for dense values."""

    def log1p(self, name: str) -> pl.Expr:
        """Give the column's logarithm; the library calls this by name."""
        return pl.col(name).fill_null(0.0).log1p()


class DCNv2(BaseModel):
    """Cross network and MLP side by side on the library's embeddings."""

    def __init__(
        self, feature_map: FeatureMap, watch: Stopwatch, task: Task, **params: Any
    ) -> None:
        super().__init__(feature_map, **params)
        self.watch = watch
        self.embedding_layer = FeatureEmbedding(feature_map, task.embedding_dim)
        input_dim = feature_map.sum_emb_out_dim()
        self.crossnet = CrossNetV2(input_dim, task.num_cross_layers)
        self.parallel_dnn = MLP_Block(input_dim=input_dim, hidden_units=list(task.hidden_dims))
        self.fc = torch.nn.Linear(input_dim + task.hidden_dims[-1], 1)
        self.compile("adam", "binary_crossentropy", task.learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Give the probabilities under the key the trainer reads."""
        embedded = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        both = torch.cat([self.crossnet(embedded), self.parallel_dnn(embedded)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(both))}

    def eval_step(self) -> None:
        """Stop the clock at the end of the epoch, before the evaluation of fit()."""
        self.watch.lap("train")
        super().eval_step()


def main() -> None:
    """Encode, train one epoch, score, report."""
    train_path, valid_path, task = parse_arguments(__doc__ or "")
    torch.set_num_threads(task.num_threads)
    seed_everything(seed=task.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAY_TMPDIR"] = folder
        _run(train_path, valid_path, task, Path(folder))
        ray.shutdown()


def _run(train_path: Path, valid_path: Path, task: Task, folder: Path) -> None:
    watch = Stopwatch()
    processor = LogProcessor(
        feature_cols=[
            {"name": list(SPARSE_COLUMNS), "active": True, "dtype": "int", "type": "categorical"},
            {
                "name": list(DENSE_COLUMNS),
                "active": True,
                "dtype": "float",
                "type": "numeric",
                "preprocess": "log1p",
                "normalizer": "MinMaxScaler",
            },
        ],
        label_col={"name": "label", "dtype": "float"},
        dataset_id=DATASET,
        data_root=str(folder),
    )
    train_data, valid_data, _ = build_dataset(
        processor, train_data=str(train_path), valid_data=str(valid_path), data_format="parquet"
    )
    watch.lap("preprocessing")

    feature_map = FeatureMap(DATASET, processor.data_dir)
    feature_map.load(processor.json_file, {"embedding_dim": task.embedding_dim})
    model = DCNv2(
        feature_map,
        watch,
        task,
        verbose=0,
        model_root=str(folder),
        metrics=["AUC", "logloss"],
        gpu=-1,
    )
    train_loader, valid_loader = RankDataLoader(
        feature_map,
        stage="train",
        train_data=train_data,
        valid_data=valid_data,
        batch_size=task.batch_size,
        data_format="parquet",
    )
    model.fit(train_loader, validation_data=valid_loader, epochs=1)
    print_report(
        make_report(
            watch,
            num_rows=train_loader.num_samples,
            labels=pl.read_parquet(valid_path, columns=["label"])["label"].to_numpy(),
            scores=model.predict(valid_loader),
            notes=NOTES,
        )
    )


if __name__ == "__main__":
    main()
