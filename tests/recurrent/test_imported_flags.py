"""Flags of the original program: all 62 are taken, and mean what they meant."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bitwright.errors import ConfigError
from bitwright.recurrent.flags import FLAGS, import_flags
from bitwright.recurrent.model import ModelOptions
from bitwright.recurrent.recipe import LanguageRecipe
from bitwright.recurrent.search import CellSearchOptions
from bitwright.recurrent.supernet import SharedOptions
from bitwright.spaces.enas_rnn import EnasRnn
from bitwright.strategies.controller import RECURRENT, Controller

DATACLASSES: dict[str, Any] = {
    "model": ModelOptions,
    "recipe": LanguageRecipe,
    "supernet": SharedOptions,
    "search": CellSearchOptions,
}
TABLE = [
    "network_type",
    "num_blocks",
    "tie_weights",
    "controller_hid",
    "shared_wdrop",
    "shared_dropout",
    "shared_dropoute",
    "shared_dropouti",
    "shared_embed",
    "shared_hid",
    "shared_rnn_max_length",
    "shared_rnn_activations",
    "shared_cnn_types",
    "cnn_hid",
    "activation_regularization",
    "activation_regularization_amount",
    "temporal_activation_regularization",
    "temporal_activation_regularization_amount",
    "norm_stabilizer_regularization",
    "norm_stabilizer_regularization_amount",
    "norm_stabilizer_fixed_point",
    "dataset",
    "mode",
    "batch_size",
    "test_batch_size",
    "max_epoch",
    "entropy_mode",
    "ppl_square",
    "reward_c",
    "ema_baseline_decay",
    "discount",
    "controller_max_step",
    "controller_optim",
    "controller_lr",
    "controller_lr_cosine",
    "controller_lr_max",
    "controller_lr_min",
    "controller_grad_clip",
    "tanh_c",
    "softmax_temperature",
    "entropy_coeff",
    "shared_initial_step",
    "shared_max_step",
    "shared_num_sample",
    "shared_optim",
    "shared_lr",
    "shared_decay",
    "shared_decay_after",
    "shared_l2_reg",
    "shared_grad_clip",
    "derive_num_sample",
    "load_path",
    "log_step",
    "save_epoch",
    "max_save_num",
    "log_level",
    "log_dir",
    "data_dir",
    "num_gpu",
    "random_seed",
    "use_tensorboard",
    "dag_path",
]


def sections(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        section, _, option = name.partition(".")
        found.setdefault(section, {})[option] = value
    return found


def test_all_flags_of_the_table_are_there() -> None:
    assert len(TABLE) == 62
    assert set(FLAGS) == set(TABLE)


def test_the_defaults_of_the_original_make_every_component() -> None:
    found = sections(import_flags("", defaults=True).options)
    made = {name: of(**found[name]) for name, of in DATACLASSES.items()}
    assert made["model"] == ModelOptions()
    # the defaults here are the original's, but for an evaluation that reads one piece of text at a time
    assert made["recipe"] == LanguageRecipe(evaluation_batch=1)
    assert made["supernet"] == SharedOptions()
    assert made["search"] == CellSearchOptions(save_every=4)
    space = EnasRnn(**found["space"])
    assert (space.nodes, space.activations) == (12, ("tanh", "relu", "identity", "sigmoid"))
    Controller(space, **found["controller"])
    assert {name: found["controller"][name] for name in RECURRENT} == RECURRENT
    assert found["run"] == {
        "corpus": "penn_treebank", "mode": "train", "load": "", "log_level": "INFO", "out": "logs", "data": "data",
        "device": "cuda", "seed": 12345, "tensorboard": True, "cell": "",
    }  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_every_flag_names_an_option_that_exists_or_says_why_not(name: str) -> None:
    flag = FLAGS[name]
    for option in flag.options:
        section, _, field = option.partition(".")
        if section in DATACLASSES:
            assert field in {f.name for f in fields(DATACLASSES[section])}
        elif section != "run":
            of = {"space": EnasRnn, "controller": Controller}[section]
            assert field in inspect.signature(of).parameters
    imported = import_flags(f"--{name} {flag.default or 'somewhere'!r}".replace("'[", '"[').replace("]'", ']"'))
    spoken_for = imported.options or imported.without_effect or name == "network_type"
    assert spoken_for


def test_flags_change_what_they_changed() -> None:
    imported = import_flags(
        "python main.py --network_type rnn --dataset=wikitext --num_blocks 6 --shared_rnn_activations ['tanh','ReLU']"
        " --ppl_square True --reward_c 8 --discount 0.9 --controller_grad_clip 1.5 --controller_optim sgd"
        " --shared_optim adam --shared_num_sample 3 --test_batch_size 20 --save_epoch 2 --num_gpu 0"
    )
    assert imported.without_effect == {}
    assert imported.options == {
        "run.corpus": "wikitext2",
        "space.nodes": 6,
        "model.nodes": 6,
        "space.activations": ("tanh", "relu"),
        "controller.reward_power": 2.0,
        "controller.reward_scale": 8.0,
        "controller.discount": 0.9,
        "controller.per_decision": True,
        "controller.clip_norm": 1.5,
        "controller.optimizer": "sgd",
        "recipe.optimizer": "adam",
        "supernet.cells": 3,
        "recipe.evaluation_batch": 20,
        "search.save_every": 2,
        "search.derive_every": 2,
        "run.device": "cpu",
    }


def test_switches_and_their_amounts_are_one_option() -> None:
    assert import_flags("--activation_regularization True").options == {"recipe.activation_reg": 2.0}
    both = "--temporal_activation_regularization True --temporal_activation_regularization_amount 0.5"
    assert import_flags(both).options == {"recipe.temporal_reg": 0.5}
    alone = import_flags("--norm_stabilizer_regularization_amount 3")
    assert alone.options == {"recipe.norm_stabilizer": 0.0}
    assert "is off" in alone.without_effect["norm_stabilizer_regularization_amount"]


def test_entropy_goes_into_the_reward_or_the_loss() -> None:
    reward = import_flags("--entropy_coeff 0.01").options
    assert (reward["controller.entropy_weight"], reward["controller.entropy_bonus"]) == (0.01, 0.0)
    regulariser = import_flags("--entropy_mode regularizer").options
    assert (regulariser["controller.entropy_weight"], regulariser["controller.entropy_bonus"]) == (0.0, 1e-4)
    assert regulariser["controller.entropy_decay"] == 1.0


def test_flags_without_a_meaning_are_taken_and_named() -> None:
    imported = import_flags("--controller_lr_cosine True --cnn_hid 32 --discount 1.5 --controller_lr_max=0.1")
    assert set(imported.without_effect) == {"controller_lr_cosine", "cnn_hid", "discount", "controller_lr_max"}
    assert imported.options == {"controller.discount": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--network_type cnn", "enas_micro"),
        ("--no_such_flag 1", "no flag --no_such_flag"),
        ("--shared_lr fast", "takes a number, got 'fast'"),
        ("--tie_weights t", "True or False"),
        ("--controller_optim momentum", "sgd or adam"),
        ("--num_gpu 4", "0 or 1"),
        ("--mode", "takes a value"),
        ("--mode train single", "no flag single"),
        ("--shared_rnn_activations [tanh", "names such as"),
        ("--log_dir 'a", "cannot be read"),
    ],
)
def test_mistakes_are_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        import_flags(text)
    assert "\n" not in str(caught.value)


def test_the_documented_table_has_every_flag() -> None:
    page = Path(__file__).parents[2] / "docs" / "from-the-originals.md"
    rows = page.read_text(encoding="utf-8").partition("## ENAS for recurrent cells")[2].splitlines()
    listed = [row.split("`")[1].removeprefix("--") for row in rows if row.startswith("| `--")]
    assert listed == list(FLAGS)
