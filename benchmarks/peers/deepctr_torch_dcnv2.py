"""DCN-V2 in DeepCTR-Torch, after its quick start: compile() and fit() on a dict of arrays.

python -m benchmarks.peers.deepctr_torch_dcnv2 TRAIN.parquet VALID.parquet
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat, get_feature_names
from deepctr_torch.models import DCN
from sklearn.preprocessing import LabelEncoder, MinMaxScaler

from benchmarks.peers.protocol import (
    Stopwatch,
    make_report,
    parse_arguments,
    print_report,
)

NOTES = (
    "DCN with cross_parameterization='matrix' (the cross layer of DCN-V2); no dropout",
    "it adds a linear model of all features to the logit, which cannot be turned off",
    "help: no L2 penalty on the tables (default 1e-5), which costs a pass over each per step",
    "help: log1p before the MinMaxScaler of its examples, as the others get",
    "help: no metrics computed during the epoch (verbose=0)",
    "fit() builds its own loader, one row at a time, without workers",
)


def main() -> None:
    """Encode, train one epoch, score, report."""
    train_path, valid_path, task = parse_arguments(__doc__ or "")
    torch.set_num_threads(task.num_threads)

    watch = Stopwatch()
    train, valid = pd.read_parquet(train_path), pd.read_parquet(valid_path)
    num_rows = len(train)
    data = pd.concat([train, valid], ignore_index=True)
    dense = [name for name in data.columns if name.startswith("i")]
    sparse = [name for name in data.columns if name.startswith("c")]
    data[dense] = MinMaxScaler().fit_transform(np.log1p(data[dense].fillna(0)))
    for name in sparse:
        data[name] = LabelEncoder().fit_transform(data[name])
    features = [
        SparseFeat(
            name, vocabulary_size=int(data[name].max()) + 1, embedding_dim=task.embedding_dim
        )
        for name in sparse
    ] + [DenseFeat(name, 1) for name in dense]
    names = get_feature_names(features)
    inputs = {name: data[name].to_numpy()[:num_rows] for name in names}
    held_out = {name: data[name].to_numpy()[num_rows:] for name in names}
    labels = data["label"].to_numpy()
    watch.lap("preprocessing")

    model = DCN(
        features,
        features,
        cross_num=task.num_cross_layers,
        cross_parameterization="matrix",
        dnn_hidden_units=tuple(task.hidden_dims),
        l2_reg_embedding=0,
        l2_reg_linear=0,
        l2_reg_cross=0,
        seed=task.seed,
    )
    model.regularization_weight.clear()  # the linear part keeps 1e-5 whatever is passed
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    model.compile(optimizer, "binary_crossentropy")
    model.fit(inputs, labels[:num_rows], batch_size=task.batch_size, epochs=1, verbose=0)
    watch.lap("train")

    print_report(
        make_report(
            watch,
            num_rows=num_rows,
            labels=labels[num_rows:],
            scores=model.predict(held_out, task.batch_size),
            notes=NOTES,
        )
    )


if __name__ == "__main__":
    main()
