"""Training by itself: every architecture has a checkpoint of its own, however long its text is."""

from __future__ import annotations

from pathlib import Path

import torch

from bitwright import Architecture
from bitwright.datasets import Dataset, Images
from bitwright.evaluators.from_scratch import FromScratch
from bitwright.spaces.enas_macro import EnasMacro
from bitwright.train.recipe import Recipe


def test_architectures_of_hundreds_of_choices_have_checkpoints_of_their_own(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (8, 4, 4, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    part = Images(pixels, torch.arange(8) % 2)
    dataset = Dataset("two", ("a", "b"), part, part, part)
    space = EnasMacro(image=(1, 4, 4), classes=2, layers=20, filters=1, ops="enas", layer_precision="binary")
    choices = [0] * 209
    architectures = [Architecture(space.name, (*choices, bit)) for bit in (0, 1)]
    assert len("-".join(map(str, architectures[0].choices))) > 255  # the longest name of a file
    evaluator = FromScratch(space, dataset, Recipe(epochs=1, batch=8), save_in=tmp_path)
    first = evaluator.evaluate(architectures)
    assert len(list(tmp_path.iterdir())) == 2
    again = evaluator.evaluate(architectures)  # from the checkpoints
    assert [m.accuracy for m in again] == [m.accuracy for m in first]
