"""DCN-V2 in torch-rechub, after its quick start: CTRTrainer over DataGenerator's loaders.

python -m benchmarks.peers.torch_rechub_dcnv2 TRAIN.parquet VALID.parquet
"""

from __future__ import annotations

import tempfile

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import LabelEncoder, MinMaxScaler
from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.ranking import DCNv2
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator

from benchmarks.peers.protocol import (
    Stopwatch,
    make_report,
    parse_arguments,
    print_report,
)

NOTES = (
    "full-rank cross layers (use_low_rank_mixture=False); parallel structure; no dropout",
    "its MLP has batch normalization, which cannot be turned off",
    "weight_decay 0 instead of the trainer's 1e-5",
    "help: log1p before the MinMaxScaler of its examples, as the others get",
    "help: columns handed over as NumPy arrays, since rows of a DataFrame are far slower",
    "num_workers 0, its default",
)


def main() -> None:
    """Encode, train one epoch, score, report."""
    train_path, valid_path, task = parse_arguments(__doc__ or "")
    torch.set_num_threads(task.num_threads)
    torch.manual_seed(task.seed)

    watch = Stopwatch()
    train, valid = pd.read_parquet(train_path), pd.read_parquet(valid_path)
    num_rows = len(train)
    data = pd.concat([train, valid], ignore_index=True)
    dense = [name for name in data.columns if name.startswith("i")]
    sparse = [name for name in data.columns if name.startswith("c")]
    data[dense] = MinMaxScaler().fit_transform(np.log1p(data[dense].fillna(0)))
    for name in sparse:
        data[name] = LabelEncoder().fit_transform(data[name])
    features = [DenseFeature(name) for name in dense] + [
        SparseFeature(name, vocab_size=int(data[name].max()) + 1, embed_dim=task.embedding_dim)
        for name in sparse
    ]
    columns = {name: data[name].to_numpy() for name in dense + sparse}
    labels = data["label"].to_numpy()
    watch.lap("preprocessing")

    generator = DataGenerator(
        {name: values[:num_rows] for name, values in columns.items()}, labels[:num_rows]
    )
    held_out = {name: values[num_rows:] for name, values in columns.items()}
    train_loader, valid_loader, _ = generator.generate_dataloader(
        x_val=held_out,
        y_val=labels[num_rows:],
        x_test=held_out,
        y_test=labels[num_rows:],
        batch_size=task.batch_size,
    )
    model = DCNv2(
        features,
        n_cross_layers=task.num_cross_layers,
        mlp_params={"dims": list(task.hidden_dims)},
        use_low_rank_mixture=False,
    )
    with tempfile.TemporaryDirectory() as folder:  # fit() saves the weights there
        trainer = CTRTrainer(
            model, optimizer_params={"lr": task.learning_rate}, n_epoch=1, model_path=folder
        )
        trainer.fit(train_loader)
    watch.lap("train")

    print_report(
        make_report(
            watch,
            num_rows=num_rows,
            labels=labels[num_rows:],
            scores=trainer.predict(trainer.model, valid_loader),
            notes=NOTES,
        )
    )


if __name__ == "__main__":
    main()
