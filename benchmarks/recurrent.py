"""A window of a recurrent cell: fused, node by node, and against torch's LSTM.

Forward and backward of the published cell of twelve nodes over 35 time steps. The fused form computes a level of the
cell in one batched product and the gradients of weights over the whole window; node by node is the same function as
autograd sees it. Per word and H units the cell multiplies 26 H^2 numbers and an LSTM 8 H^2, so that at equal efficiency
its ratio would be 0.31.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bitwright.recurrent.cell import CellNode, RecurrentCell
from bitwright.recurrent.dropout import Training
from bitwright.recurrent.model import LanguageModel, ModelOptions
from bitwright.recurrent.window import run_fused, run_loop

from .timing import Table, interleaved

ROUNDS, STEPS, VOCABULARY = 9, 35, 200  # a small vocabulary: the decoder is the same for all candidates
SIZES = ((100, 20), (300, 20), (1000, 64))
FIGURE_6 = (  # dag.json of the original program
    (-1, "tanh"), (0, "tanh"), (1, "relu"), (1, "tanh"), (2, "tanh"), (2, "tanh"), (2, "relu"), (4, "relu"),
    (7, "relu"), (8, "relu"), (8, "relu"), (8, "relu"),
)  # fmt: skip


def candidates(hidden: int, batch: int) -> dict[str, Callable[[int], None]]:
    cell = RecurrentCell(tuple(CellNode(source, activation) for source, activation in FIGURE_6))
    options = ModelOptions(nodes=12, embedding=hidden, hidden=hidden, batch_norm=False)
    model = LanguageModel(VOCABULARY, options, cell=cell)
    tokens = torch.randint(VOCABULARY, (STEPS, batch), generator=torch.Generator().manual_seed(0))
    embedding, lstm = nn.Embedding(VOCABULARY, hidden), nn.LSTM(hidden, hidden)

    def window(run: object) -> Callable[[int], None]:
        def call(i: int) -> None:
            model.run = run  # type: ignore[assignment]
            model.zero_grad()
            outputs, _ = model(cell, tokens, model.zero_state(batch), training=Training())
            outputs.raw.square().mean().backward()

        return call

    def recurrent(i: int) -> None:
        embedding.zero_grad()
        lstm.zero_grad()
        lstm(embedding(tokens))[0].square().mean().backward()

    return {"fused": window(run_fused), "node by node": window(run_loop), "torch.nn.LSTM": recurrent}


def run() -> Table:
    table = Table(["hidden units, batch", "", "tokens/s", "time, ratio to fused (quartiles)"])
    for hidden, batch in SIZES:
        seconds = interleaved(candidates(hidden, batch), 3 if hidden >= 1000 else ROUNDS, warmup=1)
        for name, taken in seconds.items():
            low, middle, high = np.quantile(taken / seconds["fused"], [0.25, 0.5, 0.75])
            speed = STEPS * batch / float(np.median(taken))
            ratio = f"{middle:.2f} ({low:.2f}-{high:.2f})"
            table.rows.append([f"{hidden}, {batch}", name, f"{speed:,.0f}", ratio])
    table.notes.append(f"Forward and backward without a decoder; candidates in turn, {STEPS} time steps.")
    return table
