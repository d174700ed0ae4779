"""The language model: its cell by hand in numpy, its gradients by differences, its sizes by arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bitwright.errors import ConfigError, InvalidArchitecture
from bitwright.recurrent.cell import CellNode, RecurrentCell
from bitwright.recurrent.dropout import Dropout, Training
from bitwright.recurrent.model import LanguageModel, ModelOptions
from bitwright.recurrent.window import run_fused, run_loop
from bitwright.spaces.enas_rnn import EnasRnn
from tiny_language_models import AUTHORS, CHAIN, TREE, VOCABULARY, text, tiny

NUMPY = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
ALL = Dropout(word=0.2, embedding=0.2, input=0.3, between=0.25, output=0.4, weight=0.5)
VARIANTS: dict[str, tuple[RecurrentCell, dict[str, Any]]] = {
    "original": (TREE, {}),
    "state is the output": (TREE, {"next_state": "output", "batch_norm": False}),
    "clipped": (TREE, {"norm_clip": 0.7}),
    "clipped output": (TREE, {"norm_clip": 0.5, "next_state": "output"}),
    "chain": (CHAIN, {}),
    "authors": (AUTHORS, {"variant": "authors"}),
    "untied": (TREE, {"tied": False, "embedding": 5}),
    # not rounded on both sides of a product: sums of few levels are zero but for rounding, where relu has two slopes
    "4-bit weights": (TREE, {"weights": "4", "vocabulary_weights": "8"}),
    "binary weights": (AUTHORS, {"weights": "binary", "variant": "authors"}),
    "ternary weights": (TREE, {"weights": "ternary"}),
    "3-bit reads": (TREE, {"activations": "3"}),
    "binary reads": (AUTHORS, {"activations": "binary", "variant": "authors"}),
    "ternary reads": (TREE, {"activations": "ternary", "initial": 2.0}),
    "one node": (RecurrentCell(TREE.nodes[:1]), {"nodes": 1}),
}
each_variant = pytest.mark.parametrize(("cell", "options"), VARIANTS.values(), ids=VARIANTS.keys())


def by_hand(model: LanguageModel, cell: RecurrentCell, tokens: Tensor, state: np.ndarray) -> tuple[np.ndarray, ...]:
    """Outputs before their normalisation, and states, of the equations, one example and one node at a time."""
    p = {name: tensor.detach().numpy() for name, tensor in model.store.named_parameters()}
    authors, width = model.options.variant == "authors", model.options.hidden
    outputs, states = np.zeros((*tokens.shape, width)), np.zeros((*tokens.shape, width))
    for example in range(tokens.shape[1]):
        h = state[example]
        for t in range(len(tokens)):
            x = p["embedding"][int(tokens[t, example])]
            values: list[np.ndarray] = []
            for number, node in enumerate(cell.nodes):
                if number == 0:
                    source = h
                    product = p["words"] @ x + p["state"] @ h + (0 if authors else p["words/bias"])
                else:
                    source = values[node.source]
                    suffix = f"/{node.activation}" if authors else ""
                    product = p[f"block/{node.source}-{number}{suffix}"] @ source
                c = 1 / (1 + np.exp(-product[:width]))
                values.append(c * NUMPY[node.activation](product[width:]) + (1 - c) * source)
            averaged = values[1:] if authors else [values[leaf] for leaf in cell.leaves]
            outputs[t, example] = sum(averaged) / len(averaged)
            h = outputs[t, example] if authors or model.options.next_state == "output" else values[-1]
            h = h * min(1, model.options.norm_clip / np.linalg.norm(h))
            states[t, example] = h
    return outputs, states


@pytest.mark.parametrize("name", [name for name, (_, o) in VARIANTS.items() if not {"weights", "activations"} & {*o}])
@torch.no_grad()
def test_the_cell_computes_the_published_equations(name: str) -> None:
    cell, options = VARIANTS[name]
    model = tiny(cell, **options)
    tokens, state = text(12).view(4, 3), torch.rand(3, 8, dtype=torch.float64) - 0.5
    outputs, states = by_hand(model, cell, tokens, state.numpy())
    if model.options.normalises:
        model.mean.fill_(0.2)
        model.variance.fill_(0.3)
        outputs = (outputs - 0.2) / np.sqrt(0.3 + 1e-5)
    found, after = model(cell, tokens, state)
    np.testing.assert_allclose(found.raw, outputs, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.states, states, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(after, states[-1], rtol=1e-12, atol=1e-14)
    matrix = model.store["embedding" if model.options.tied else "decoder"]
    bias = model.store["decoder/bias"] if model.options.has_bias else 0
    expected = torch.from_numpy(outputs) @ matrix.T + bias
    torch.testing.assert_close(model.logits(found.dropped), expected)


def loss(model: LanguageModel, cell: RecurrentCell, dropout: Dropout, dtype: torch.dtype | None = None) -> Tensor:
    """A number that depends on outputs, states and logits of a window, with draws that are always the same."""
    tokens, generator = text(18, seed=3).view(6, 3), torch.Generator().manual_seed(5)
    state = torch.rand(3, model.options.hidden, generator=generator, dtype=torch.float64).to(model.store["state"].dtype)
    training = Training(generator, dropout)
    outputs, _ = model(cell, tokens, state - 0.5, training=training, dtype=dtype)
    weight = torch.linspace(-1, 1, outputs.states.numel()).view_as(outputs.states)
    likelihood = torch.log_softmax(model.logits(outputs.dropped), -1)[..., 2].sum()
    return likelihood + (outputs.states * weight).sum() + outputs.raw[1:].sub(outputs.raw[:-1]).pow(2).sum()


@each_variant
def test_the_fused_window_and_the_loop_agree_in_values_and_gradients(
    cell: RecurrentCell, options: dict[str, Any]
) -> None:
    model, gradients, values = tiny(cell, **options), [], []
    for run in (run_fused, run_loop):
        model.run = run
        model.zero_grad()
        value = loss(model, cell, ALL)
        value.backward()
        values.append(float(value.detach()))
        gradients.append({name: p.grad.clone() for name, p in model.store.named_parameters() if p.grad is not None})
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert gradients[0].keys() == gradients[1].keys() == set(model.tensor_names(cell))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["original", "state is the output", "authors", "untied"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    cell, options = VARIANTS[name]
    model = tiny(cell, **options)
    value = loss(model, cell, ALL)
    value.backward()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.store.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        assert parameter.grad is not None
        slope = float((parameter.grad * direction).sum())
        measured, step = 0.0, 1e-6
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * step)
                measured += sign * float(loss(model, cell, ALL)) / (2 * step)
                parameter.sub_(direction, alpha=sign * step)
        # the third derivative times step**2, and rounding of 1e-16 of a loss of 100 over the step
        assert measured == pytest.approx(slope, rel=1e-5, abs=1e-6)


@torch.no_grad()
def test_the_clip_scales_states_without_being_differentiated() -> None:
    model = tiny(TREE, norm_clip=0.5, initial=2.0)
    tokens, state = text(12).view(4, 3), model.zero_state(3)
    outputs, _ = model(TREE, tokens, state)
    norms = torch.linalg.vector_norm(outputs.states, dim=-1)
    assert float(norms.max()) <= 0.5 + 1e-12
    free = tiny(TREE, norm_clip=0, initial=2.0)
    assert float(torch.linalg.vector_norm(free(TREE, tokens, state)[0].states, dim=-1).max()) > 0.5
    mixed = torch.cat([torch.full((1, 8), 3.0), torch.full((1, 8), 0.01)]).double()
    for scale in (1.0, 25.0):  # only the examples above the limit change
        clipped = tiny(TREE, norm_clip=scale, initial=2.0)(TREE, tokens[:1, :2], mixed)[0].states
        unclipped = free(TREE, tokens[:1, :2], mixed)[0].states
        for example in range(2):
            norm = float(torch.linalg.vector_norm(unclipped[0, example]))
            torch.testing.assert_close(clipped[0, example], unclipped[0, example] * min(1.0, scale / norm))


def test_the_original_of_the_penn_treebank_has_146_014_000_parameters() -> None:
    parts = LanguageModel(10_000).parts()
    assert parts == {
        "embedding": 10_000 * 1000,
        "words": 2 * 1000 * 1000,
        "state": 2 * 1000 * 1000,
        "block": 66 * 2 * 1000 * 1000,
        "words/bias": 2 * 1000,
        "decoder/bias": 10_000,
        "norm/gain": 1000,
        "norm/offset": 1000,
    }
    assert sum(parts.values()) == 146_014_000


def test_the_authors_models_have_the_published_parameters() -> None:
    search = ModelOptions(nodes=9, embedding=200, hidden=200, variant="authors", initial=0.04)
    assert sum(LanguageModel(10_000, search).parts().values()) == 16_560_000
    released = EnasRnn(8, variant="authors")
    cell = released.cell(released.parse("0 2 1 0 2 1 2 2 4 0 5 0 3 2 6 2"))
    final = ModelOptions(nodes=8, embedding=800, hidden=800, variant="authors", initial=0.05)
    assert sum(LanguageModel(10_000, final, cell=cell).parts().values()) == 20_800_000


def test_a_cell_uses_the_blocks_of_its_pairs_and_no_others() -> None:
    model = tiny()
    assert sum(name.startswith("block/") for name, _ in model.store.named_parameters()) == 15
    blocks = [name for name in model.tensor_names(TREE) if name.startswith("block/")]
    assert sorted(blocks) == ["block/0-1", "block/0-2", "block/1-3", "block/1-4", "block/4-5"]
    loss(model, TREE, Dropout()).backward()
    used = {name for name, p in model.store.named_parameters() if p.grad is not None}
    assert used == set(model.tensor_names(TREE))
    # a weight belongs to the pair of nodes, whatever the activation
    other = RecurrentCell((*TREE.nodes[:3], CellNode(1, "tanh"), *TREE.nodes[4:]))
    assert model.tensor_names(other) == model.tensor_names(TREE)
    by_activation = tiny(variant="authors")
    assert len([n for n in by_activation.tensor_names(AUTHORS) if n.endswith(("/tanh", "/relu"))]) == 3


def test_a_tensor_starts_from_seed_and_name_alone() -> None:
    shared, alone, other = tiny(), tiny(TREE), tiny(TREE, seed=1)
    for name in alone.tensor_names(TREE):
        assert torch.equal(shared.store[name], alone.store[name])
    assert not torch.equal(alone.store["state"], other.store["state"])
    assert float(alone.store["state"].detach().abs().max()) <= 0.5


@pytest.mark.parametrize("rate", ["word", "embedding", "input", "between", "output", "weight"])
def test_each_dropout_acts_in_training_and_nowhere_else(rate: str) -> None:
    model = tiny(TREE)
    tokens = text(60, seed=2).view(20, 3)
    dropout = Dropout(**{rate: 0.5})

    def outputs(training: Training | None) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(TREE, tokens, model.zero_state(3), training=training)[0].dropped
        return found

    plain = outputs(Training())
    first = outputs(Training(torch.Generator().manual_seed(1), dropout))
    assert not torch.allclose(plain, first)
    assert torch.equal(first, outputs(Training(torch.Generator().manual_seed(1), dropout)))
    assert not torch.equal(first, outputs(Training(torch.Generator().manual_seed(2), dropout)))
    assert torch.equal(outputs(Training(None, dropout)), plain)
    if rate == "output":  # locked: the same numbers at every time step
        dropped = first == 0
        assert torch.equal(dropped, dropped[:1].expand_as(dropped))
        torch.testing.assert_close(first[~dropped], 2 * plain[~dropped])


def test_word_dropout_takes_a_word_away_wherever_it_occurs() -> None:
    model = tiny(TREE, batch_norm=False)
    tokens = torch.tensor([[1], [2], [1], [2]])
    seen: list[Tensor] = []

    def run(*given: Any) -> tuple[Tensor, Tensor]:
        seen.append(given[3])
        return run_loop(*given)

    model.run = run
    with torch.no_grad():
        model(TREE, tokens, model.zero_state(1), training=Training(torch.Generator().manual_seed(0), Dropout(word=0.5)))
    bias = model.store["words/bias"]
    for word in (0, 1):
        assert torch.equal(seen[0][word], seen[0][word + 2])
        kept = seen[0][word, 0] - bias
        expected = 2 * model.store["words"] @ model.store["embedding"][int(tokens[word])]
        assert torch.equal(kept, torch.zeros_like(kept)) or torch.allclose(kept, expected)


def test_training_and_evaluation_agree_once_the_statistics_are_calibrated() -> None:
    model = tiny(TREE)
    tokens = text(60, seed=2).view(20, 3)
    state = model.zero_state(3)
    with torch.no_grad():
        trained = model(TREE, tokens, state, training=Training())[0].raw
        model.calibrate(TREE, tokens)
        torch.testing.assert_close(model(TREE, tokens, state)[0].raw, trained)
        # one example by itself, which has no statistics worth the name
        torch.testing.assert_close(model(TREE, tokens[:, :1], state[:1])[0].raw, trained[:, :1])


def test_quantized_matrices_have_their_levels_and_bits() -> None:
    for name, levels, bits in (("binary", 2, 1), ("ternary", 3, 2), ("4", 15, 4)):
        model = tiny(TREE, weights=name, vocabulary_weights="8")
        for tensor in ("words", "state", "block/1-4"):
            assert len(model._real(tensor).unique()) <= levels
        parts = model.parts()
        matrices = parts["words"] + parts["state"] + parts["block"]
        rest = parts["words/bias"] + parts["decoder/bias"] + parts["norm/gain"] + parts["norm/offset"]
        scales = 32 * ((7 if name == "4" else 0) + 1)
        assert model.weight_bits() == bits * matrices + 8 * parts["embedding"] + 32 * rest + scales


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    for options, message in (
        ({"embedding": 4, "hidden": 8}, "tied"),
        ({"variant": "other"}, "original or authors"),
        ({"weights": "9"}, "binary, ternary"),
        ({"nodes": 0}, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            ModelOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="between"):
        Dropout(between=1.0)
    model = tiny(TREE)
    with pytest.raises(InvalidArchitecture, match="another cell"):
        model(CHAIN, text(2).view(2, 1), model.zero_state(1))
    with pytest.raises(InvalidArchitecture, match="6 nodes"):
        tiny()(RecurrentCell(TREE.nodes[:2]), text(2).view(2, 1), model.zero_state(1))
    with pytest.raises(InvalidArchitecture, match="tanh"):
        tiny(variant="authors")(TREE, text(2).view(2, 1), model.zero_state(1))
    assert model.vocabulary == VOCABULARY
