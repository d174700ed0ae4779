"""Losses of classification; each takes logits (N, classes) and labels (N,) and returns a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy with label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def squared_hinge(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean of max(0, 1 - t y)**2 over classes, t = +1 for the label and -1 else: the L2-SVM of BinaryConnect.

    Smoothing moves the targets towards zero: t = 1 - smoothing and -(1 - smoothing).
    """
    targets = torch.full_like(logits, smoothing - 1.0).scatter_(1, labels[:, None], 1.0 - smoothing)
    return F.relu(1.0 - targets * logits).square().mean()


LOSSES = {"cross_entropy": cross_entropy, "squared_hinge": squared_hinge}
