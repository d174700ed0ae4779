"""The gradients of gates, from one pass through the active network (Cai et al. 2019, arXiv:1812.00332, equation 4).

With the active gate of a decision at 1 and the others at 0, what the decision puts out, y = sum_k g_k o_k(x), is what
the active option does. So dL/dg_k = <dL/dy, o_k(x)>: the other options are evaluated at the x of the active network
after its backward pass, one at a time and without a graph, and take neither part in the pass nor memory beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..architecture import Architecture
from ..modules import Gates, Training, Weights, run
from ..network import Network
from ..quantizers import Quantized, Scale, sum_of_products
from ..spaces import PathChoice, QuantizerChoice, RelaxedSpace
from ..train.losses import LOSSES


def gate_gradients(
    space: RelaxedSpace,
    architecture: Architecture,
    considered: Sequence[Sequence[int]],
    weights: Weights,
    images: Tensor,
    labels: Tensor,
    *,
    loss: str = "cross_entropy",
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, dict[int, Tensor]]:
    """The loss, (), and by the number of a decision the gradients of the gates of its considered options, float64.

    considered: of every decision some options, among them the active one. weights: a shared store, which is left as it
    is. A decision by which zeros are put out, or which takes no effect in this architecture, is left out.
    """
    network = space.shared_network(architecture).trunk
    choices = [choice for choice in space.gated(architecture) if len(considered[choice.decision]) > 1]
    paths = [choice for choice in choices if isinstance(choice, PathChoice) and choice.output]
    leaves: dict[int, Tensor] = {}
    gates: dict[str, Gates] = {}
    for choice in choices:
        if isinstance(choice, QuantizerChoice) and choice.quantizers:
            options = considered[choice.decision]
            leaf = leaves[choice.decision] = torch.zeros(len(options), device=images.device, requires_grad=True)
            gates |= {key: Gates(tuple(q[k] for k in options), leaf) for key, q in choice.quantizers.items()}
    with _frozen(weights):
        active = _Active.of(network, weights, images, Training(generator, momentum=0.0, gates=gates), dtype)
        total = LOSSES[loss](active.value(-1).real.float(), labels)
        position = {node.key: at for at, node in enumerate(network.nodes) if node.key}
        outputs = [position[path.output] for path in paths]
        wanted = [*(active.value(output).codes for output in outputs), *leaves.values()]
        found = torch.autograd.grad(total, wanted, materialize_grads=True) if wanted else ()
    gradients = dict(zip(leaves, found[len(paths) :], strict=True))
    for path, output, gradient in zip(paths, outputs, found, strict=False):
        chosen = path.segments[architecture.choices[path.decision]]
        segments = [path.segments[option] for option in considered[path.decision]]
        gradients[path.decision] = active.products(output, chosen, segments, gradient)
    return total.detach(), _on_processor(gradients)


@dataclass(frozen=True)
class _Active:
    """The active network and the values of its nodes, and how the other options are run."""

    network: Network
    values: Sequence[Quantized | None]
    weights: Weights
    training: Training
    dtype: torch.dtype

    @classmethod
    def of(cls, network: Network, weights: Weights, images: Tensor, training: Training, dtype: torch.dtype) -> _Active:
        """The gradients of its values can be had even if no weight has one."""
        start = run(Network(network.nodes[:1]), weights, images, training=training, dtype=dtype)[0]
        assert start is not None
        start.codes.requires_grad_()
        values = run(network, weights, start, training=training, dtype=dtype)
        return cls(network, values, weights, replace(training, gates={}), dtype)

    def value(self, position: int) -> Quantized:
        value = self.values[position]
        assert value is not None  # all of them are kept
        return value

    @torch.no_grad()
    def products(
        self, output: int, chosen: Network | None, options: Sequence[Network | None], gradient: Tensor
    ) -> Tensor:
        """<dL/dy, o_k(x)> for every option k, where y is the value of the node `output`, in which `chosen` ends.

        gradient: of the codes of y; dL/dy is gradient / the scale of y.
        """
        assert chosen is not None  # it has an output
        y, x = self.value(output), self.value(_source(self.network, output, chosen))
        products = []
        for option in options:
            if option is None:
                products.append(torch.zeros((), device=gradient.device))
            else:
                products.append(_product(gradient, y.scale, y if option is chosen else self._run(option, x)))
        return torch.stack(products)

    def _run(self, option: Network, x: Quantized) -> Quantized:
        value = run(option, self.weights, x, training=self.training, dtype=self.dtype, keep=False)[-1]
        assert value is not None  # the output is kept
        return value


@contextlib.contextmanager
def _frozen(weights: Weights) -> Iterator[None]:
    """A backward pass leaves out the gradients of weights, which take as long as those of what they multiply."""
    weights.requires_grad_(False)
    try:
        yield
    finally:
        weights.requires_grad_(True)


def _product(gradient: Tensor, scale: Scale, other: Quantized) -> Tensor:
    """<gradient / scale, other>."""
    ratio = other.scale / scale
    if isinstance(ratio, float):
        return sum_of_products(gradient, other.codes) * ratio
    if ratio.numel() == 1:
        return sum_of_products(gradient, other.codes) * ratio.reshape(())
    return sum_of_products(gradient, other.codes * ratio)


def _source(network: Network, output: int, segment: Network) -> int:
    """The node of the network that the segment which ends in its node `output` reads."""
    inside = len(segment.nodes) - 1
    while inside:
        inside, output = segment.nodes[inside].inputs[0], network.nodes[output].inputs[0]
    return output


def _on_processor(gradients: dict[int, Tensor]) -> dict[int, Tensor]:
    """In one transfer."""
    if not gradients:
        return {}
    sizes = [len(gradient) for gradient in gradients.values()]
    together = torch.cat([gradient.double() for gradient in gradients.values()]).cpu()
    return dict(zip(gradients, torch.split(together, sizes), strict=True))
