"""Padded sequences of PyTorch, and scikit-learn's scaling and imputation by their formulas, over random tables with holes."""

import json

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

torch.manual_seed(3)
rng = np.random.default_rng(3)

sequences = [torch.randint(1, 9, (length, 2)) for length in (3, 1, 4)]
padded = [
    {
        "batch_first": batch_first,
        "side": side,
        "values": pad_sequence(sequences, batch_first, -1.0, side).flatten().tolist(),
    }
    for batch_first in (True, False)
    for side in ("right", "left")
]

train = rng.integers(-5, 6, (20, 3)).astype(np.float64)
train[rng.random(train.shape) < 0.2] = np.nan
train[:, 2] = 7.3  # constant
table = rng.normal(size=(4, 3))


def scaled_by(shift, scale):
    return ((table - shift) / np.where(scale == 0, 1, scale)).flatten().tolist()


def most_frequent(column):
    values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
    return values[counts.argmax()]


low, high = np.nanmin(train, 0), np.nanmax(train, 0)
print(
    json.dumps(
        {
            "sequences": [sequence.flatten().tolist() for sequence in sequences],
            "padded": padded,
            # JSON has no NaN.
            "train": [None if np.isnan(x) else x for x in train.flatten()],
            "table": table.flatten().tolist(),
            # The deviation of a constant column is a rounding error.
            "standard": scaled_by(np.nanmean(train, 0), np.round(np.nanstd(train, 0), 12)),
            "min_max": scaled_by(low, high - low),
            "mean": np.nanmean(train, 0).tolist(),
            "median": np.nanmedian(train, 0).tolist(),
            "most_frequent": [most_frequent(column) for column in train.T],
        }
    )
)
