"""Short options and the flags of the original programs, in terms of the options of an experiment.

The ENAS programs have one set of `child_` flags, which mean the shared weights in a search and the network in a
training; the flags of the MicroNet program are for a training. Flags that name nothing here (replicas, data formats,
log intervals) are not accepted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ConfigError

SHORT = {
    "--data": "--dataset.root",
    "--space": "--space.name",
    "--strategy": "--strategy.name",
    "--evaluator": "--evaluator.name",
    "--network": "--space.network",
    "--latency-table": "--search.latency_table",
    "--ray-workers": "--search.workers",
    "--ray-address": "--search.ray_address",
    "--weights": "--space.weights",
    "--activations": "--space.activations",
}


class Flag(NamedTuple):
    """search, train: the option it stands for in either command, or None. convert: its value in our terms."""

    search: str | None
    train: str | None
    convert: Callable[[str], str] = str


def _complement(text: str) -> str:
    return f"{1 - float(text):.10g}"


def _doubled(text: str) -> str:
    return f"{2 * float(text):.10g}"


def _plus_two(text: str) -> str:
    return str(int(text) + 2)


def _truth(text: str) -> str:
    words = {"true": "true", "1": "true", "yes": "true", "false": "false", "0": "false", "no": "false"}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def _cosine(text: str) -> str:
    return "cosine_restarts" if _truth(text) == "true" else "constant"


ORIGINAL = {
    "num_epochs": Flag("supernet.epochs", "training.epochs"),
    "batch_size": Flag("supernet.batch", "training.batch"),
    "child_lr": Flag("supernet.lr", "training.lr"),
    "child_lr_max": Flag("supernet.lr", "training.lr"),
    "child_lr_min": Flag("supernet.lr_min", "training.lr_min"),
    "child_lr_T_0": Flag("supernet.restart_period", "training.restart_period"),
    "child_lr_T_mul": Flag("supernet.restart_factor", "training.restart_factor"),
    "child_lr_cosine": Flag("supernet.schedule", "training.schedule", _cosine),
    "child_l2_reg": Flag("supernet.weight_decay", "training.weight_decay", _doubled),
    "child_grad_bound": Flag("supernet.clip_norm", "training.clip_norm"),
    "child_cutout_size": Flag("supernet.cutout", "training.cutout"),
    "child_num_layers": Flag("space.cells", "final.cells", _plus_two),
    "child_num_cells": Flag("space.nodes", None),
    "child_out_filters": Flag("space.filters", "final.filters"),
    "child_keep_prob": Flag("space.dropout", "final.dropout", _complement),
    "child_drop_path_keep_prob": Flag(None, "training.drop_path", _complement),
    "child_use_aux_heads": Flag("space.auxiliary", "final.auxiliary", _truth),
    "controller_lr": Flag("strategy.learning_rate", None),
    "controller_bl_dec": Flag("strategy.baseline_decay", None),
    "controller_tanh_constant": Flag("strategy.tanh_constant", None),
    "controller_op_tanh_reduce": Flag("strategy.op_tanh_reduce", None),
    "controller_temperature": Flag("strategy.temperature", None),
    "controller_entropy_weight": Flag("strategy.entropy_weight", None),
    "controller_skip_target": Flag("strategy.skip_target", None),
    "controller_skip_weight": Flag("strategy.skip_weight", None),
    "controller_train_every": Flag("search.round_epochs", None),
    "controller_train_steps": Flag("search.updates", None),
    "controller_num_aggregate": Flag("search.batch", None),
}
RENAMED = {"child_fixed_arc": "--arch", "fixed_arc": "--arch", "fixed-arc": "--arch", "output_dir": "--out"}
SWITCHES = {"child_lr_cosine", "child_use_aux_heads"}


def _or_none(text: str) -> str:
    """-1 is none there, 0 here."""
    return str(max(int(text), 0))


def _list(text: str) -> str:
    return f"[{','.join(str(int(part)) for part in text.split(','))}]"


def _one_of(*allowed: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text.upper() not in allowed:
            raise ValueError
        return text.lower()

    return convert


def _steps(text: str) -> list[str]:
    dropped = "0.2" if int(text) > 0 else "0"
    return ["--space.dropout_samples", str(max(int(text), 1)), "--space.dropout", dropped]


def _quantized(text: str) -> list[str]:
    return {
        "INT": ["--space.quantized", "true"],
        "FP": ["--space.quantized", "false", "--space.clip_residuals", "true"],
    }[text.upper()]


def _statistics(text: str) -> list[str]:
    return {"STATS": []}[text.upper()]


def _option(name: str, convert: Callable[[str], str] = str) -> Callable[[str], list[str]]:
    return lambda text: [f"--{name}", convert(text)]


MICRONET: dict[str, Callable[[str], list[str]]] = {
    "j": _option("dataset.workers"),
    "workers": _option("dataset.workers"),
    "epochs": _option("training.epochs"),
    "b": _option("training.batch"),
    "batch-size": _option("training.batch"),
    "optimizer-batch-size": _option("training.optimizer_batch", _or_none),
    "lr": _option("training.lr"),
    "lr-schedule": _option("training.schedule", _one_of("STEP", "LINEAR", "COSINE")),
    "milestones": _option("training.milestones", _list),
    "warmup": _option("training.warmup_epochs"),
    "label-smoothing": _option("training.label_smoothing"),
    "mix-rate": _option("training.mix_rate"),
    "mix-prob": _option("training.mix_prob"),
    "mix-type": _option("training.mix_kind", _one_of("CUTMIX", "MIXUP")),
    "dropout-steps": _steps,
    "dropout-rate": _option("space.dropout"),
    "momentum": _option("training.momentum"),
    "weight-decay": _option("training.weight_decay"),
    "wd": _option("training.weight_decay"),
    "prof": lambda text: ["--stop-after", text] if int(text) > 0 else [],
    "workspace": _option("out"),
    "bit-width": _option("space.weight_bits"),
    "depthwise-bit-width": _option("space.depthwise_bits"),
    "first-layer-bit-width": _option("space.first_layer_bits"),
    "hard-tanh-threshold": _option("space.hard_tanh"),
    "quant-type": _quantized,
    "weight-scaling-impl-type": _statistics,
}
MICRONET_SWITCHES = {
    "bn-no-wd": ["--training.norm_decay", "false"],
    "norm-input": ["--space.pixels", "imagenet"],
    "nesterov": ["--training.nesterov", "true"],
    "gather-checkpoints": ["--training.gather_checkpoints", "true"],
    "training-only": ["--training.training_only", "true"],
    "finetune": [],  # with --resume FILE, which is --init FILE
}
ELSEWHERE = {
    "start-epoch": "--resume goes on in the epoch where a training was, --init starts in the first",
    "p": "the rate of work is shown every few seconds",
    "print-freq": "the rate of work is shown every few seconds",
    "local_rank": "torchrun tells every process which it is",
    "report-file": "it is report.json in the training's directory",
    "final-weights": "they are weights.safetensors in the training's directory",
    "compute-micronet-cost": "`bitwright cost RUN` tells it",
}


def translate(arguments: Sequence[str], command: str) -> list[str]:
    """`arguments` with short options and original flags in terms of the options there are."""
    translated: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        name = option.lstrip("-")
        if not word.startswith("-"):
            translated.append(word)
        elif option == "--dataset":
            translated += _dataset(value if equals else _value(rest, option))
        elif option == "--import-flags":
            translated += _imported(value if equals else _value(rest, option), command)
        elif option in SHORT:
            translated += [SHORT[option], value if equals else _value(rest, option)]
        elif RENAMED.get(name) == "--arch" and command in ("search", "demo"):
            raise ConfigError(f"{option} means nothing in `{command}`; `bitwright train {option} ...` trains it")
        elif name in RENAMED:
            translated += [RENAMED[name], value if equals else _value(rest, option)]
        elif name in SWITCHES or name.removeprefix("no") in SWITCHES:
            if name.startswith("no") and equals:
                raise ConfigError(f"{option} takes no value, got {value!r}")
            name, truth = name.removeprefix("no"), "false" if name.startswith("no") else "true"
            if not equals and rest and rest[0].lower() in ("true", "false"):
                truth = rest.pop(0)
            translated += _original(name, value if equals else truth, command)
        elif name in ORIGINAL:
            translated += _original(name, value if equals else _value(rest, option), command)
        elif command == "train" and name in MICRONET:
            translated += _micronet(option, value if equals else _value(rest, option))
        elif command == "train" and name in MICRONET_SWITCHES and not equals:
            translated += MICRONET_SWITCHES[name]
        elif command == "train" and name in ELSEWHERE:
            raise ConfigError(f"{option} means nothing here: {ELSEWHERE[name]}")
        elif command == "train" and option == "--resume" and rest and rest[0].endswith((".pth", ".tar")):
            translated += _resumed(rest.pop(0), arguments)
        else:
            translated.append(word)
    return translated


SECTIONS = {  # of recurrent/flags.py, and those of an experiment
    "space": ("space",),
    "model": ("model",),
    "recipe": ("supernet", "training"),
    "supernet": ("shared",),
    "search": ("search",),
    "controller": ("strategy",),
}
RUN = {"run.corpus": "--dataset.name", "run.data": "--dataset.root", "run.seed": "--seed", "run.device": "--device"}
FILES = {"run.out": "--out", "run.load": "--init", "run.cell": "--cell"}  # where the original has a default of its own
MODES = {"train": ("search",), "single": ("train",), "derive": ("derive",), "test": ("evaluate",)}
LOGGING = {  # by flag: its option, the value that changes nothing, and why another one does nothing either
    "log_level": ("run.log_level", "INFO", "the log in the run directory holds every line"),
    "use_tensorboard": ("run.tensorboard", True, "scalars for TensorBoard are always written"),
}
NETWORKS = {  # what the flags of the unwritten search for networks of images stand for
    "space.nodes": "space.layers",
    "controller.hidden": "strategy.hidden",
    "controller.optimizer": "strategy.optimizer",
    "controller.clip_norm": "strategy.clip_norm",
    "controller.learning_rate": "strategy.learning_rate",
    "controller.tanh_constant": "strategy.tanh_constant",
    "controller.temperature": "strategy.temperature",
    "controller.baseline_decay": "strategy.baseline_decay",
    "controller.entropy_weight": "strategy.entropy_weight",
    "controller.entropy_bonus": "strategy.entropy_bonus",
    "controller.entropy_decay": "strategy.entropy_decay",
    "recipe.batch": "supernet.batch",
    "recipe.epochs": "supernet.epochs",
    "recipe.lr": "supernet.lr",
    "recipe.weight_decay": "supernet.weight_decay",
    "recipe.clip_norm": "supernet.clip_norm",
    "run.data": "dataset.root",
    "run.seed": "seed",
    "run.device": "device",
    "run.out": "out",
}
IMAGES = {"cifar": "cifar10", "cifar10": "cifar10", "mnist": "mnist", "MNIST": "mnist"}


def _imported(text: str, command: str) -> list[str]:
    """A command line of the PyTorch program for recurrent ENAS in terms of the options here."""
    from ..recurrent.flags import for_images, import_flags

    images = for_images(text)
    if images is not None:
        return _imported_network(*images, command)
    given, found = import_flags(text), import_flags(text, defaults=True)
    _check_mode(found.options["run.mode"], command)
    translated = ["--space.name", "enas_rnn"]
    for option, value in found.options.items():
        section, _, name = option.partition(".")
        if option in RUN:
            translated += [RUN[option], "auto" if value == "cuda" else _written(value)]
        elif option in FILES:
            translated += [FILES[option], _written(value)] if option in given.options and value else []
        elif section in SECTIONS and option != "model.nodes":  # which are the space's
            for own in SECTIONS[section]:
                translated += [f"--{own}.{name}", _written(value)]
    _tell(found.without_effect | _logging(given.options))
    return translated


def _check_mode(mode: str, command: str) -> None:
    if command not in MODES[mode]:
        raise ConfigError(f"--mode {mode} is `bitwright {MODES[mode][0]}`, not `bitwright {command}`")


def _logging(given: Mapping[str, Any]) -> dict[str, str]:
    """Why flags of the log do nothing, by name."""
    return {name: why for name, (option, usual, why) in LOGGING.items() if given.get(option, usual) != usual}


def _imported_network(text: str, dataset: str, without_effect: Mapping[str, str], command: str) -> list[str]:
    from ..recurrent.flags import flag_of, import_flags

    if dataset not in IMAGES:
        raise ConfigError(f"--dataset {dataset} is no data set of images: {', '.join(IMAGES)}")
    translated, idle = ["--space.name", "enas_macro", "--dataset.name", IMAGES[dataset]], {}
    found = import_flags(text)
    _check_mode(found.options.get("run.mode", "train"), command)
    for option, value in found.options.items():
        if option in NETWORKS:
            translated += [f"--{NETWORKS[option]}", "auto" if value == "cuda" else _written(value)]
        elif (name := flag_of(option)) is not None and name not in ("mode", *LOGGING):
            idle[name] = "it is of recurrent cells"
    _tell({**without_effect, **found.without_effect, **idle, **_logging(found.options)})
    return translated


def _written(value: object) -> str:
    """As a command line has it."""
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tell(without_effect: Mapping[str, str]) -> None:
    for name, why in without_effect.items():
        print(f"--{name} has no effect: {why}", file=sys.stderr)


def _original(name: str, value: str, command: str) -> list[str]:
    flag = ORIGINAL[name]
    option = flag.train if command in ("train", "reproduce") else flag.search
    if option is None:
        raise ConfigError(f"--{name} means nothing in `{command}`")
    try:
        converted = flag.convert(value)
    except ValueError:
        wanted = "true or false" if name in SWITCHES else "a number"
        raise ConfigError(f"--{name} takes {wanted}, got {value!r}") from None
    return [f"--{option}", converted]


def _micronet(option: str, value: str) -> list[str]:
    try:
        return MICRONET[option.lstrip("-")](value)
    except (ValueError, KeyError):
        raise ConfigError(
            f"{option} takes what it takes in the original program, got {value!r}; see docs/from-the-originals.md"
        ) from None


def _resumed(file: str, arguments: Sequence[str]) -> list[str]:
    """A checkpoint of another program gives weights, but no optimizer and no epoch."""
    if not {"--finetune", "--evaluate"} & set(arguments):
        raise ConfigError(f"--resume goes on with a training of ours; --init {file} starts one from those weights")
    return ["--init", file]


def _dataset(name: str) -> list[str]:
    kind, colon, path = name.partition(":")
    if colon and kind == "folder":
        return ["--dataset.name", "folder", "--dataset.root", path]
    return ["--dataset.name", name]


def _value(rest: list[str], option: str) -> str:
    if not rest:
        raise ConfigError(f"{option} wants a value")
    return rest.pop(0)
