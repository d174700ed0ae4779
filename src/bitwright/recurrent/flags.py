"""The 62 flags of the widespread PyTorch program for recurrent ENAS, in terms of the options here.

Options are named section.option. model, recipe, supernet, search, space and controller are the arguments of
ModelOptions, LanguageRecipe, SharedOptions, CellSearchOptions, EnasRnn and Controller;
run is for whoever starts the run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ..strategies.controller import RECURRENT
from ..text.corpora import ALIASES
from .cell import ACTIVATIONS

CNN = "the program's cnn was never written; networks of images are in the spaces enas_micro and enas_macro"


@dataclass(frozen=True)
class Flag:
    """options: what it stands for; none where it means nothing by itself. default: of the original, as it is written.

    convert: its value in our terms; ValueError where it has none. wants: what such a value would be.
    why: why the flag has no effect.
    """

    options: tuple[str, ...]
    default: str
    convert: Callable[[str], Any]
    wants: str
    why: str = ""


@dataclass(frozen=True)
class Imported:
    """options: values by section.option. without_effect: why a flag that was given does nothing, by its name."""

    options: dict[str, Any]
    without_effect: dict[str, str] = field(default_factory=dict)


def _whole(option: str, default: str, *more: str) -> Flag:
    return Flag((option, *more), default, int, "a whole number")


def _number(option: str, default: str) -> Flag:
    return Flag((option,), default, float, "a number")


def _truth(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def _switch(option: str, default: str, on: Any = True, off: Any = False) -> Flag:
    return Flag((option,) if option else (), default, lambda text: on if _truth(text) else off, "True or False")


def _choice(option: str, default: str, values: Mapping[str, Any]) -> Flag:
    def convert(text: str) -> Any:
        if text not in values:
            raise ValueError
        return values[text]

    return Flag((option,) if option else (), default, convert, " or ".join(values))


def _same(*names: str) -> dict[str, str]:
    return dict(zip(names, names, strict=True))


def _text(option: str, default: str) -> Flag:
    return Flag((option,), default, str, "text")


def _unused(default: str, why: str) -> Flag:
    return Flag((), default, str, "text", why)


def _part(default: str) -> Flag:
    """A number that another flag uses."""
    return Flag((), default, float, "a number")


def _activations(text: str) -> tuple[str, ...]:
    """Names with commas between them; brackets and quotation marks, which shells take away, may be there."""
    if text.startswith("[") != text.endswith("]"):
        raise ValueError
    names = tuple(name.strip(" '\"").lower() for name in text.strip("[]").split(","))
    if not set(names) <= set(ACTIVATIONS):
        raise ValueError
    return names


def _discount(text: str) -> float:
    """The original discounts by numbers between 0 and 1 and leaves rewards as they are for all others."""
    return float(text) if 0 < float(text) < 1 else 1.0


FLAGS: dict[str, Flag] = {
    "network_type": _choice("", "rnn", {"rnn": "rnn"}),
    "num_blocks": _whole("space.nodes", "12", "model.nodes"),
    "tie_weights": _switch("model.tied", "True"),
    "controller_hid": _whole("controller.hidden", "100"),
    "shared_wdrop": _number("recipe.weight_dropout", "0.5"),
    "shared_dropout": _number("recipe.output_dropout", "0.4"),
    "shared_dropoute": _number("recipe.word_dropout", "0.1"),
    "shared_dropouti": _number("recipe.input_dropout", "0.65"),
    "shared_embed": _whole("model.embedding", "1000"),
    "shared_hid": _whole("model.hidden", "1000"),
    "shared_rnn_max_length": _whole("recipe.bptt", "35"),
    "shared_rnn_activations": Flag(
        ("space.activations",), "['tanh', 'ReLU', 'identity', 'sigmoid']", _activations, "names such as ['tanh','ReLU']"
    ),
    "shared_cnn_types": _unused("['3x3', '5x5', 'sep 3x3', 'sep 5x5', 'max 3x3', 'max 5x5']", CNN),
    "cnn_hid": _unused("64", CNN),
    "activation_regularization": _switch("", "False"),
    "activation_regularization_amount": _part("2.0"),
    "temporal_activation_regularization": _switch("", "False"),
    "temporal_activation_regularization_amount": _part("1.0"),
    "norm_stabilizer_regularization": _switch("", "False"),
    "norm_stabilizer_regularization_amount": _part("1.0"),
    "norm_stabilizer_fixed_point": _number("recipe.norm_stabilizer_point", "5.0"),
    "dataset": _choice("run.corpus", "ptb", _same(*ALIASES.values()) | ALIASES),
    "mode": _choice("run.mode", "train", _same("train", "derive", "test", "single")),
    "batch_size": _whole("recipe.batch", "64"),
    "test_batch_size": _whole("recipe.evaluation_batch", "1"),
    "max_epoch": _whole("recipe.epochs", "150"),
    "entropy_mode": _choice("", "reward", _same("reward", "regularizer")),
    "ppl_square": _switch("controller.reward_power", "False", 2.0, 1.0),
    "reward_c": _number("controller.reward_scale", "80"),
    "ema_baseline_decay": _number("controller.baseline_decay", "0.95"),
    "discount": Flag(("controller.discount",), "1.0", _discount, "a number"),
    "controller_max_step": _whole("search.rewards", "2000"),
    "controller_optim": _choice("controller.optimizer", "adam", _same("sgd", "adam")),
    "controller_lr": _number("controller.learning_rate", "3.5e-4"),
    "controller_lr_cosine": _unused("False", "the original never read it; its rate is constant, as here"),
    "controller_lr_max": _unused("0.05", "the original never read it; its rate is constant, as here"),
    "controller_lr_min": _unused("0.001", "the original never read it; its rate is constant, as here"),
    "controller_grad_clip": _number("controller.clip_norm", "0"),
    "tanh_c": _number("controller.tanh_constant", "2.5"),
    "softmax_temperature": _number("controller.temperature", "5.0"),
    "entropy_coeff": _part("1e-4"),
    "shared_initial_step": _whole("supernet.warmup_steps", "0"),
    "shared_max_step": _whole("supernet.steps", "400"),
    "shared_num_sample": _whole("supernet.cells", "1"),
    "shared_optim": _choice("recipe.optimizer", "sgd", _same("sgd", "adam")),
    "shared_lr": _number("recipe.lr", "20.0"),
    "shared_decay": _number("recipe.decay", "0.96"),
    "shared_decay_after": _whole("recipe.decay_after", "15"),
    "shared_l2_reg": _number("recipe.weight_decay", "1e-7"),
    "shared_grad_clip": _number("recipe.clip_norm", "0.25"),
    "derive_num_sample": _whole("search.derive_samples", "100"),
    "load_path": _text("run.load", ""),
    "log_step": _whole("recipe.log_every", "50"),
    "save_epoch": _whole("search.save_every", "4", "search.derive_every"),
    "max_save_num": _whole("search.keep", "4"),
    "log_level": _choice("run.log_level", "INFO", _same("INFO", "DEBUG", "WARN")),
    "log_dir": _text("run.out", "logs"),
    "data_dir": _text("run.data", "data"),
    "num_gpu": _choice("run.device", "1", {"0": "cpu", "1": "cuda"}),
    "random_seed": _whole("run.seed", "12345"),
    "use_tensorboard": _switch("run.tensorboard", "True"),
    "dag_path": _text("run.cell", ""),
}
REGULARISERS = {  # a switch, whose amount has its name and _amount
    "activation_regularization": "recipe.activation_reg",
    "temporal_activation_regularization": "recipe.temporal_reg",
    "norm_stabilizer_regularization": "recipe.norm_stabilizer",
}


def import_flags(text: str, *, defaults: bool = False) -> Imported:
    """The options that a command line of the original program stands for, such as `--shared_lr 20.0 --mode=train`.

    What comes before the first flag, such as `python main.py`, is passed over. ConfigError names a flag the program
    does not have, or a value that a flag does not take.
    defaults: fill in the original's defaults, and what its controller has no flag for.
    """
    given = _parsed(text)
    texts = {name: flag.default for name, flag in FLAGS.items()} | given
    values = {name: _converted(name, value) for name, value in texts.items()}
    named = FLAGS if defaults else given
    options = {option: values[name] for name in named for option in FLAGS[name].options}
    without_effect = {name: FLAGS[name].why for name in given if FLAGS[name].why}
    for switch, option in REGULARISERS.items():
        amount = f"{switch}_amount"
        if switch in named or amount in named:
            options[option] = values[amount] if values[switch] else 0.0
        if amount in given and not values[switch]:
            without_effect[amount] = f"--{switch} is off"
    if "norm_stabilizer_fixed_point" in given and not values["norm_stabilizer_regularization"]:
        without_effect["norm_stabilizer_fixed_point"] = "--norm_stabilizer_regularization is off"
    if "discount" in given and values["discount"] == 1.0:
        without_effect["discount"] = "the original discounts by numbers between 0 and 1 only"
    if "entropy_mode" in named or "entropy_coeff" in named:
        options |= _entropy(values["entropy_mode"], values["entropy_coeff"])
    if defaults:
        fixed = ("position_embedding", "normalise_advantages", "per_decision")
        options |= {f"controller.{name}": RECURRENT[name] for name in fixed}
    elif values["discount"] < 1.0:
        options["controller.per_decision"] = True
    return Imported(options, without_effect)


def _entropy(mode: str, coefficient: float) -> dict[str, float]:
    in_reward = mode == "reward"
    return {
        "controller.entropy_weight": coefficient if in_reward else 0.0,
        "controller.entropy_bonus": 0.0 if in_reward else coefficient,
        "controller.entropy_decay": 1.0,
    }


def _parsed(text: str) -> dict[str, str]:
    """The flags of a command line as they are written, over several lines if they end with backslashes."""
    try:
        words = shlex.split(re.sub(r"\\\r?\n", "", text))
    except ValueError as error:
        raise ConfigError(f"flags that cannot be read: {error}") from None
    while words and not words[0].startswith("--"):
        if words.pop(0).endswith("generate_gif.py"):
            raise ConfigError("generate_gif.py is `bitwright film RUN --out FILE`")
    found: dict[str, str] = {}
    while words:
        flag, assigned, value = words.pop(0).partition("=")
        name = flag.removeprefix("--")
        if name not in FLAGS or not flag.startswith("--"):
            raise ConfigError(f"the ENAS program has no flag {flag}")
        if not assigned and (not words or words[0].startswith("--")):
            raise ConfigError(f"--{name} takes a value: {FLAGS[name].wants}")
        found[name] = value if assigned else words.pop(0)
    return found


def _converted(name: str, text: str) -> Any:
    if name == "network_type" and text == "cnn":
        raise ConfigError(f"--network_type cnn: {CNN}")
    try:
        return FLAGS[name].convert(text)
    except ValueError:
        raise ConfigError(f"--{name} takes {FLAGS[name].wants}, got {text!r}") from None


def flag_of(option: str) -> str | None:
    """The name of the flag that stands for an option; None where it only follows from one."""
    switch = next((switch for switch, own in REGULARISERS.items() if own == option), None)
    return next((name for name, flag in FLAGS.items() if option in flag.options), switch)


def for_images(text: str) -> tuple[str, str, dict[str, str]] | None:
    """Of a command line with --network_type cnn its other flags, the data set, and why flags do nothing, by name.

    None for any other command line.
    """
    given = _parsed(text)
    if given.get("network_type") != "cnn":
        return None
    dataset = given.pop("dataset", "cifar10")
    without_effect = {}
    if given.get("controller_optim") == "momentum":
        del given["controller_optim"]
        without_effect["controller_optim"] = "the original has no code for momentum"
    rest = (f"--{name}={value}" for name, value in given.items() if name != "network_type")
    return shlex.join(rest), dataset, without_effect
