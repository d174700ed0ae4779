"""Word-level language models around a recurrent cell (Pham et al. 2018, ENAS, arXiv:1802.03268, section 2.1).

Two published variants:

    original  the cell of the widespread PyTorch program: node 0 has biases, later weights belong to a pair of nodes,
              the output is the mean of the leaves, batch-normalised, and the next state is the last node.
    authors   the cell of the authors' corrected program: node 0 is a tanh, nothing has a bias, shared weights belong to
              a pair of nodes and an activation; output and next state are the mean of all nodes but node 0.

A model holds the weights of all cells of a space, or of one cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, InvalidArchitecture
from ..modules import Latent, Weights
from ..precision import NAMES, scaled_weight_quantizer, symmetric_activation
from ..quantizers import Fans, Quantizer, quantize
from ..train.random_stream import random_stream
from .cell import ACTIVATIONS, RecurrentCell
from .dropout import Training, masked
from .window import CellWeights, Run, Wiring, run_fused

NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class ModelOptions:
    """nodes: of a cell that are decided upon; the authors' cells have one more, node 0.
    embedding, hidden: numbers per word and per state.
    variant: original or authors.
    tied: the decoder's matrix is that of the embedding (Inan et al. 2017, arXiv:1611.01462).
    batch_norm: normalise the outputs of a window, which the authors' variant does not. Evaluation takes statistics that
        are calibrated on training text for the cell at hand.
    next_state: of the original variant: its last node, or the output before its normalisation.
    norm_clip: the largest norm of a state, per example; 0 does not clip.
    initial: weights start uniform in [-initial, initial]; latent ones of binary and ternary weights in their bounds.
    weights: precision of all products of the cell. k bits are integers times the scale that the largest weight of the
        matrix gives; binary and ternary ones are in +-H with H of Glorot. The highway, the gates and the mean are real.
    activations: precision of what products read of states and nodes; k bits are fixed point on [-1, 1).
    vocabulary_weights: precision of embedding and decoder.
    """

    nodes: int = 12
    embedding: int = 1000
    hidden: int = 1000
    variant: Literal["original", "authors"] = "original"
    tied: bool = True
    batch_norm: bool = True
    next_state: Literal["last", "output"] = "last"
    norm_clip: float = 25.0
    initial: float = 0.025
    weights: str = "float"
    activations: str = "float"
    vocabulary_weights: str = "float"

    def __post_init__(self) -> None:
        for name in ("nodes", "embedding", "hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"language model: {name} is at least 1, got {getattr(self, name)}")
        for name, allowed in (("variant", ("original", "authors")), ("next_state", ("last", "output"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"language model: {name} is {' or '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("weights", "activations", "vocabulary_weights"):
            if getattr(self, name) not in NAMES:
                raise ConfigError(f"language model: {name} is one of {', '.join(NAMES)}; got {getattr(self, name)!r}")
        if self.tied and self.embedding != self.hidden:
            raise ConfigError(
                f"language model: tied weights need embedding = hidden, got {self.embedding} and {self.hidden}"
            )
        if self.norm_clip < 0 or not self.initial > 0:
            raise ConfigError(
                f"language model: norm_clip is at least 0 and initial above 0, got {self.norm_clip} and {self.initial}"
            )

    @property
    def has_bias(self) -> bool:
        return self.variant == "original"

    @property
    def normalises(self) -> bool:
        return self.batch_norm and self.variant == "original"

    @property
    def cell_nodes(self) -> int:
        """Nodes of a cell, node 0 included."""
        return self.nodes + (self.variant == "authors")


class Outputs(NamedTuple):
    """Of a window, (T, B, H) each. dropped: what the decoder reads. raw: before dropout. states: after each step."""

    dropped: Tensor
    raw: Tensor
    states: Tensor


class LanguageModel(nn.Module):
    """Tensors by name in `store`, which an optimizer may be made for; each starts from (seed, name) alone."""

    def __init__(
        self,
        vocabulary: int,
        options: ModelOptions | None = None,
        *,
        cell: RecurrentCell | None = None,
        activations: tuple[str, ...] = ACTIVATIONS,
        seed: int = 0,
    ) -> None:
        """vocabulary: words. cell: hold the weights of this cell alone. activations: that cells choose from."""
        super().__init__()
        self.options = options = options or ModelOptions()
        self.vocabulary, self.cell, self.activations, self.seed = vocabulary, cell, activations, seed
        self.store = Weights(seed=seed)
        self.run: Run = run_fused
        self._matrix = scaled_weight_quantizer(options.weights)
        self._vocabulary_matrix = scaled_weight_quantizer(options.vocabulary_weights)
        self._reads = None if options.activations == "float" else symmetric_activation(options.activations)
        width, words = options.hidden, Fans(options.hidden, vocabulary)
        self._add("embedding", (vocabulary, options.embedding), self._vocabulary_matrix, words)
        if not options.tied:
            self._add("decoder", (vocabulary, width), self._vocabulary_matrix, words)
        self._add("words", (2 * width, options.embedding), self._matrix, Fans(options.embedding, width))
        self._add("state", (2 * width, width), self._matrix, Fans(width, width))
        for name in self._block_names() if cell is None else self._blocks_of(cell).values():
            self._add(name, (2 * width, width), self._matrix, Fans(width, width))
        if options.has_bias:
            self._add("words/bias", (2 * width,))
            self.store.register_parameter("decoder/bias", nn.Parameter(torch.zeros(vocabulary)))
        self.mean: Tensor
        self.variance: Tensor
        if options.normalises:
            self.store.register_parameter("norm/gain", nn.Parameter(torch.ones(width)))
            self.store.register_parameter("norm/offset", nn.Parameter(torch.zeros(width)))
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("variance", torch.ones(width))

    def _add(
        self, name: str, shape: tuple[int, ...], quantizer: Quantizer | None = None, fans: Fans | None = None
    ) -> None:
        bound = self.options.initial
        if quantizer is not None and fans is not None and quantizer.levels is not None:
            self.store.latents[name] = Latent(quantizer, fans)
            bound = quantizer.latent_bound(fans) or bound
        generator = random_stream(torch.device("cpu"), self.seed, "language model", name)
        values = torch.rand(shape, generator=generator).mul_(2 * bound).sub_(bound)
        self.store.register_parameter(name, nn.Parameter(values))

    def _block_names(self) -> Iterator[str]:
        for node in range(1, self.options.cell_nodes):
            for source in range(node):
                for activation in self.activations if self.options.variant == "authors" else ("",):
                    yield _block_name(source, node, activation)

    def _blocks_of(self, cell: RecurrentCell) -> dict[int, str]:
        """The name of every later node's matrix, by node."""
        by_activation = self.options.variant == "authors"
        return {
            number: _block_name(node.source, number, node.activation if by_activation else "")
            for number, node in enumerate(cell.nodes)
            if number
        }

    @property
    def device(self) -> torch.device:
        return self.store.device

    def tensor_names(self, cell: RecurrentCell) -> list[str]:
        """The names of the tensors that a cell uses."""
        blocks = set(self._blocks_of(cell).values())
        return [name for name, _ in self.store.named_parameters() if not name.startswith("block/") or name in blocks]

    def parts(self, cell: RecurrentCell | None = None) -> dict[str, int]:
        """Parameters by part: of what a cell uses, or of all that the model holds."""
        names = self.tensor_names(cell) if cell is not None else [name for name, _ in self.store.named_parameters()]
        found: dict[str, int] = {}
        for name in names:
            part = name.partition("/")[0] if name.startswith("block/") else name
            found[part] = found.get(part, 0) + self.store[name].numel()
        return found

    def weight_bits(self, cell: RecurrentCell | None = None) -> int:
        """Bits that store what `parts` counts: each tensor at its precision, 32 for what is not rounded.

        The scale of a k-bit matrix is one more 32-bit number.
        """
        names = self.tensor_names(cell) if cell is not None else [name for name, _ in self.store.named_parameters()]
        bits = 0
        for name in names:
            latent, tensor = self.store.latents.get(name), self.store[name]
            bits += tensor.numel() * (32 if latent is None else latent.quantizer.bits)
            if latent is not None and isinstance(latent.quantizer.scale(tensor, latent.fans), Tensor):
                bits += 32
        return bits

    def zero_state(self, batch: int) -> Tensor:
        """(batch, H)."""
        return self.store["state"].new_zeros(batch, self.options.hidden)

    def forward(
        self,
        cell: RecurrentCell,
        tokens: Tensor,
        state: Tensor,
        *,
        training: Training | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Outputs, Tensor]:
        """What the cell makes of a window, and the state after it, which carries no gradient.

        tokens: int64 (T, B). state: (B, H). training: without it nothing is dropped. dtype: that products are computed
        in; None for that of the weights.
        """
        draws = training or Training()
        raw, states = self._run(cell, tokens, state, draws, dtype)
        raw = self._normalised(raw, batch_statistics=training is not None)
        dropped = masked(raw, draws.mask(draws.dropout.output, raw, (1, *raw.shape[1:])))
        return Outputs(dropped, raw, states), states[-1].detach().clone()

    def _run(
        self, cell: RecurrentCell, tokens: Tensor, state: Tensor, draws: Training, dtype: torch.dtype | None
    ) -> tuple[Tensor, Tensor]:
        """Outputs before their normalisation, and states."""
        self._check(cell)
        matrix = self._real("embedding")
        x = F.embedding(tokens, matrix)
        words = draws.mask(draws.dropout.word, matrix, (self.vocabulary, 1))
        x = x if words is None else x * F.embedding(tokens, words)
        x = masked(x, draws.mask(draws.dropout.embedding, x, x.shape))
        x = masked(x, draws.mask(draws.dropout.input, x, (1, *x.shape[1:])))
        products = self._linear(x, self._real("words"), "words/bias", dtype)
        mask = draws.mask(draws.dropout.between, x, state.shape)
        return self.run(cell, self._wiring(cell), self._cell_weights(cell, draws, mask, dtype), products, state)

    @torch.no_grad()
    def calibrate(self, cell: RecurrentCell, tokens: Tensor) -> None:
        """Set the statistics of the normalisation to those of the cell on `tokens`, (T, B), from a zero state."""
        if not self.options.normalises:
            return
        raw, _ = self._run(cell, tokens, self.zero_state(tokens.shape[1]), Training(), None)
        variance, mean = torch.var_mean(raw, dim=(0, 1), correction=0)
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    def logits(self, outputs: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """(..., words) of outputs (..., H)."""
        return self._linear(outputs, self._real("embedding" if self.options.tied else "decoder"), "decoder/bias", dtype)

    def _check(self, cell: RecurrentCell) -> None:
        if self.cell is not None and cell != self.cell:
            raise InvalidArchitecture("the language model holds the weights of another cell")
        if len(cell.nodes) != self.options.cell_nodes:
            raise InvalidArchitecture(
                f"the language model takes cells of {self.options.cell_nodes} nodes, got one of {len(cell.nodes)}"
            )
        if self.options.variant == "authors" and cell.nodes[0].activation != "tanh":
            raise InvalidArchitecture(f"node 0 of the authors' cells is a tanh, got {cell.nodes[0].activation}")

    def _wiring(self, cell: RecurrentCell) -> Wiring:
        last = len(cell.nodes) - 1
        if self.options.variant == "authors":
            return Wiring(tuple(range(1, last + 1)), None, self.options.norm_clip, self._reads)
        state = last if self.options.next_state == "last" else None
        return Wiring(cell.leaves, state, self.options.norm_clip, self._reads)

    def _cell_weights(
        self, cell: RecurrentCell, draws: Training, mask: Tensor | None, dtype: torch.dtype | None
    ) -> CellWeights:
        state = self._real("state")
        state = masked(state, draws.mask(draws.dropout.weight, state, state.shape))
        blocks = {number: self._real(name) for number, name in self._blocks_of(cell).items()}
        if dtype is not None:
            state, blocks = state.to(dtype), {number: block.to(dtype) for number, block in blocks.items()}
        return CellWeights(state, blocks, mask)

    def _real(self, name: str) -> Tensor:
        """A matrix as it is multiplied by: rounded, if its latent is."""
        tensor, latent = self.store[name], self.store.latents.get(name)
        if latent is None:
            return tensor
        return quantize(latent.quantizer, tensor, latent.quantizer.scale(tensor, latent.fans)).real

    def _linear(self, x: Tensor, matrix: Tensor, bias: str, dtype: torch.dtype | None) -> Tensor:
        product = F.linear(x, matrix) if dtype is None else F.linear(x.to(dtype), matrix.to(dtype)).to(x.dtype)
        return product + self.store[bias] if self.options.has_bias else product

    def _normalised(self, outputs: Tensor, *, batch_statistics: bool) -> Tensor:
        if not self.options.normalises:
            return outputs
        gain, offset = self.store["norm/gain"], self.store["norm/offset"]
        rows = outputs.flatten(0, 1)
        mean, variance = (None, None) if batch_statistics else (self.mean, self.variance)
        normal = F.batch_norm(rows, mean, variance, gain, offset, batch_statistics, 0.0, NORM_EPSILON)
        return normal.view_as(outputs)


def _block_name(source: int, node: int, activation: str) -> str:
    return f"block/{source}-{node}" + (f"/{activation}" if activation else "")
