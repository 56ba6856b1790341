"""What a class counts in the loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.datasets import CLASSES


def class_weights(labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], power: float) -> Tensor:
    """[K] weights of the classes, frequency to minus power, of mean 1 over the maps; a class that does not occur gets 0."""
    counts = np.bincount(labels, minlength=len(CLASSES)).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)
