"""The flags of the original programs: what each stands for in a search and in a training, and how it converts."""

from __future__ import annotations

from typing import Any

import pytest

from bitwright.cli.flags import translate
from bitwright.errors import ConfigError
from bitwright.experiment import resolve

# flag, the value given, the option in a search, the option in a training, the value that it becomes
CONVERSIONS: list[tuple[str, str, str | None, str | None, Any]] = [
    ("num_epochs", "150", "supernet.epochs", "training.epochs", 150),
    ("batch_size", "160", "supernet.batch", "training.batch", 160),
    ("child_lr", "0.1", "supernet.lr", "training.lr", 0.1),
    ("child_lr_max", "0.05", "supernet.lr", "training.lr", 0.05),
    ("child_lr_min", "0.0005", "supernet.lr_min", "training.lr_min", 0.0005),
    ("child_lr_T_0", "10", "supernet.restart_period", "training.restart_period", 10),
    ("child_lr_T_mul", "2", "supernet.restart_factor", "training.restart_factor", 2),
    ("child_l2_reg", "1e-4", "supernet.weight_decay", "training.weight_decay", 2e-4),
    ("child_l2_reg", "0", "supernet.weight_decay", "training.weight_decay", 0),
    ("child_grad_bound", "5.0", "supernet.clip_norm", "training.clip_norm", 5),
    ("child_cutout_size", "16", "supernet.cutout", "training.cutout", 16),
    ("child_num_layers", "6", "space.cells", "final.cells", 8),
    ("child_num_layers", "15", "space.cells", "final.cells", 17),
    ("child_num_cells", "5", "space.nodes", None, 5),
    ("child_out_filters", "36", "space.filters", "final.filters", 36),
    ("child_keep_prob", "0.90", "space.dropout", "final.dropout", 0.1),
    ("child_keep_prob", "1", "space.dropout", "final.dropout", 0),
    ("child_keep_prob", "0.3", "space.dropout", "final.dropout", 0.7),
    ("child_drop_path_keep_prob", "0.60", None, "training.drop_path", 0.4),
    ("child_use_aux_heads", "true", "space.auxiliary", "final.auxiliary", True),
    ("child_use_aux_heads", "False", "space.auxiliary", "final.auxiliary", False),
    ("child_lr_cosine", "True", "supernet.schedule", "training.schedule", "cosine_restarts"),
    ("child_lr_cosine", "false", "supernet.schedule", "training.schedule", "constant"),
    ("controller_lr", "0.0035", "strategy.learning_rate", None, 0.0035),
    ("controller_bl_dec", "0.99", "strategy.baseline_decay", None, 0.99),
    ("controller_tanh_constant", "1.10", "strategy.tanh_constant", None, 1.1),
    ("controller_op_tanh_reduce", "2.5", "strategy.op_tanh_reduce", None, 2.5),
    ("controller_temperature", "5", "strategy.temperature", None, 5),
    ("controller_entropy_weight", "0.0001", "strategy.entropy_weight", None, 0.0001),
    ("controller_skip_target", "0.4", "strategy.skip_target", None, 0.4),
    ("controller_skip_weight", "0.8", "strategy.skip_weight", None, 0.8),
    ("controller_train_every", "1", "search.round_epochs", None, 1),
    ("controller_train_steps", "30", "search.updates", None, 30),
    ("controller_num_aggregate", "10", "search.batch", None, 10),
]
COMMANDS = ("search", "train")
MEANINGFUL = [
    (flag, given, command, option, expected)
    for flag, given, *options, expected in CONVERSIONS
    for command, option in zip(COMMANDS, options, strict=True)
    if option is not None
]
MEANINGLESS = sorted(
    {(c[0], command) for c in CONVERSIONS for command in COMMANDS} - {(m[0], m[2]) for m in MEANINGFUL}
)


def value_of(option: str, arguments: list[str]) -> Any:
    """What the option resolves to with these arguments, which name it differently."""
    section, _, name = option.partition(".")
    return resolve(arguments)[section][name]


# what a flag stands for


@pytest.mark.parametrize(("flag", "given", "command", "option", "expected"), MEANINGFUL)
def test_a_flag_stands_for_an_option(flag: str, given: str, command: str, option: str, expected: Any) -> None:
    translated = translate([f"--{flag}", given], command)
    assert translated[0] == f"--{option}"
    assert value_of(option, translated) == expected


@pytest.mark.parametrize(("flag", "command"), MEANINGLESS)
def test_a_flag_that_means_nothing_in_a_command_is_refused_by_name(flag: str, command: str) -> None:
    with pytest.raises(ConfigError, match=f"--{flag} means nothing in `{command}`"):
        translate([f"--{flag}", "1"], command)


def test_the_controllers_flags_mean_nothing_in_a_training() -> None:
    refused = {flag for flag, command in MEANINGLESS if command == "train"}
    assert {c[0] for c in CONVERSIONS if c[0].startswith("controller_")} <= refused


@pytest.mark.parametrize("word", ["--num_epochs=7", "-num_epochs=7", "--num_epochs 7", "-num_epochs 7"])
def test_a_flag_takes_its_value_behind_a_blank_or_an_equals_sign_and_one_dash_or_two(word: str) -> None:
    assert translate(word.split(), "search") == ["--supernet.epochs", "7"]


def test_doubling_and_complement_leave_no_rounding_error_behind() -> None:
    assert translate(["--child_keep_prob", "0.9"], "search") == ["--space.dropout", "0.1"]
    assert translate(["--child_l2_reg", "0.00015"], "search") == ["--supernet.weight_decay", "0.0003"]


# switches


@pytest.mark.parametrize(
    ("words", "truth"),
    [
        (["--child_use_aux_heads"], True),
        (["--nochild_use_aux_heads"], False),
        (["--child_use_aux_heads=true"], True),
        (["--child_use_aux_heads=false"], False),
        (["--child_use_aux_heads=1"], True),
        (["--child_use_aux_heads=0"], False),
        (["--child_use_aux_heads", "TRUE"], True),
        (["--child_use_aux_heads", "False"], False),
    ],
)
@pytest.mark.parametrize(("command", "option"), [("search", "space.auxiliary"), ("train", "final.auxiliary")])
def test_a_switch_is_on_unless_it_is_denied(words: list[str], truth: bool, command: str, option: str) -> None:
    assert value_of(option, translate(words, command)) is truth


@pytest.mark.parametrize(
    ("word", "schedule"), [("--child_lr_cosine", "cosine_restarts"), ("--nochild_lr_cosine", "constant")]
)
def test_the_cosine_switch_chooses_the_schedule(word: str, schedule: str) -> None:
    assert translate([word], "train") == ["--training.schedule", schedule]


def test_a_switch_takes_no_word_that_is_no_truth_value() -> None:
    assert translate(["--child_use_aux_heads", "RUN"], "train") == ["--final.auxiliary", "true", "RUN"]


# flags of a command itself


@pytest.mark.parametrize("flag", ["--child_fixed_arc", "--fixed_arc", "--fixed-arc", "-fixed_arc"])
def test_a_fixed_arc_is_the_architecture_to_train(flag: str) -> None:
    assert translate([flag, "0 2 1 4"], "train") == ["--arch", "0 2 1 4"]
    assert translate([f"{flag}=0 2 1 4"], "train") == ["--arch", "0 2 1 4"]


def test_output_dir_is_out() -> None:
    assert translate(["--output_dir", "outputs"], "search") == ["--out", "outputs"]


@pytest.mark.parametrize(
    ("short", "option"),
    [
        ("--data", "--dataset.root"),
        ("--space", "--space.name"),
        ("--strategy", "--strategy.name"),
        ("--weights", "--space.weights"),
        ("--activations", "--space.activations"),
    ],
)
def test_short_options_stand_for_the_ones_of_a_section(short: str, option: str) -> None:
    assert translate([short, "word"], "search") == [option, "word"]
    assert translate([f"{short}=word"], "train") == [option, "word"]


def test_a_data_set_is_named_shortly() -> None:
    assert translate(["--dataset", "mnist"], "search") == ["--dataset.name", "mnist"]
    assert translate(["--dataset=mnist"], "search") == ["--dataset.name", "mnist"]


def test_a_folder_is_a_data_set() -> None:
    expected = ["--dataset.name", "folder", "--dataset.root", "some/where:else"]
    assert translate(["--dataset", "folder:some/where:else"], "search") == expected


# the MicroNet program

MICRONET_FLAGS: list[tuple[str, str, Any]] = [  # words, the option in a training, the value that it becomes
    ("-j 10", "dataset.workers", 10),
    ("--workers 10", "dataset.workers", 10),
    ("--epochs 60", "training.epochs", 60),
    ("-b 96", "training.batch", 96),
    ("--batch-size=96", "training.batch", 96),
    ("--optimizer-batch-size 960", "training.optimizer_batch", 960),
    ("--optimizer-batch-size -1", "training.optimizer_batch", 0),
    ("--lr 0.005", "training.lr", 0.005),
    ("--lr-schedule step", "training.schedule", "step"),
    ("--lr-schedule cosine", "training.schedule", "cosine"),
    ("--milestones 15,30,45", "training.milestones", [15, 30, 45]),
    ("--warmup 5", "training.warmup_epochs", 5),
    ("--label-smoothing 0.1", "training.label_smoothing", 0.1),
    ("--mix-rate 0.2", "training.mix_rate", 0.2),
    ("--mix-prob 0.7", "training.mix_prob", 0.7),
    ("--mix-type MIXUP", "training.mix_kind", "mixup"),
    ("--dropout-steps 32", "space.dropout_samples", 32),
    ("--dropout-steps 32", "space.dropout", 0.2),
    ("--dropout-steps 0", "space.dropout", 0.0),
    ("--dropout-steps 8 --dropout-rate 0.3", "space.dropout", 0.3),
    ("--momentum 0.8", "training.momentum", 0.8),
    ("--weight-decay 3e-5", "training.weight_decay", 3e-5),
    ("--wd 3e-5", "training.weight_decay", 3e-5),
    ("--bn-no-wd", "training.norm_decay", False),
    ("--norm-input", "space.pixels", "imagenet"),
    ("--nesterov", "training.nesterov", True),
    ("--gather-checkpoints", "training.gather_checkpoints", True),
    ("--training-only", "training.training_only", True),
    ("--bit-width 3", "space.weight_bits", 3),
    ("--depthwise-bit-width 6", "space.depthwise_bits", 6),
    ("--first-layer-bit-width 7", "space.first_layer_bits", 7),
    ("--hard-tanh-threshold 9", "space.hard_tanh", 9.0),
    ("--quant-type INT", "space.quantized", True),
    ("--quant-type FP", "space.quantized", False),
    ("--quant-type FP", "space.clip_residuals", True),
    ("--seed 123456", "seed", 123456),
    ("--data somewhere", "dataset.root", "somewhere"),
]


@pytest.mark.parametrize(("words", "option", "expected"), MICRONET_FLAGS)
def test_a_flag_of_the_micronet_program_stands_for_an_option_of_a_training(
    words: str, option: str, expected: Any
) -> None:
    values = resolve(translate(words.split(), "train"), "micronet-4b")
    section, _, name = option.rpartition(".")
    assert (values[section][name] if section else values[name]) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--prof 20", "--stop-after 20"),
        ("--prof -1", ""),
        ("--workspace out", "--out out"),
        ("--weight-scaling-impl-type STATS", ""),
        ("--resume float.pth --finetune", "--init float.pth"),
        ("--resume best.pth.tar --evaluate", "--init best.pth.tar --evaluate"),
        ("--resume --epochs 3", "--resume --training.epochs 3"),
    ],
)
def test_a_flag_of_the_micronet_program_stands_for_an_option_of_the_command(words: str, expected: str) -> None:
    assert translate(words.split(), "train") == expected.split()


@pytest.mark.parametrize(
    "words",
    ["--lr-schedule constant", "--mix-type both", "--milestones soon", "--quant-type TERNARY", "--dropout-steps many"],
)
def test_a_value_that_the_micronet_program_does_not_take_is_refused(words: str) -> None:
    flag, value = words.split()
    with pytest.raises(ConfigError, match=f"{flag} takes .* got '{value}'"):
        translate([flag, value], "train")


@pytest.mark.parametrize(
    ("flag", "instead"),
    [
        ("--start-epoch", "--resume"),
        ("--print-freq", "every few seconds"),
        ("--local_rank", "torchrun"),
        ("--report-file", "report.json"),
        ("--final-weights", "weights.safetensors"),
        ("--compute-micronet-cost", "bitwright cost"),
    ],
)
def test_a_flag_that_stands_for_nothing_is_refused_with_what_there_is(flag: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag} means nothing here: .*{instead}"):
        translate([flag, "1"], "train")


def test_the_optimizer_of_another_program_cannot_be_resumed() -> None:
    with pytest.raises(ConfigError, match=r"--init model\.pth\.tar starts one from those weights"):
        translate(["--resume", "model.pth.tar"], "train")


def test_the_flags_of_the_micronet_program_mean_nothing_in_a_search() -> None:
    assert translate(["--epochs", "3"], "search") == ["--epochs", "3"]  # which resolving refuses


# everything else


def test_other_words_pass_through_in_order() -> None:
    given = ["RUN", "--supernet.epochs", "3", "--resume", "--seed=4", "--config", "a.yaml", "--", "-1"]
    assert translate(given, "train") == given


def test_flags_between_other_words_are_translated_where_they_stand() -> None:
    given = ["RUN", "--num_epochs", "3", "--resume", "--child_lr=0.1", "--seed", "4"]
    expected = ["RUN", "--training.epochs", "3", "--resume", "--training.lr", "0.1", "--seed", "4"]
    assert translate(given, "train") == expected


def test_translating_leaves_the_arguments_as_they_were() -> None:
    given = ["--num_epochs", "3"]
    translate(given, "train")
    assert given == ["--num_epochs", "3"]


@pytest.mark.parametrize("flag", ["data_format", "child_num_branches", "log_every", "num_replicas", "child_nonsense"])
def test_an_unknown_flag_is_refused_when_options_resolve(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"no option --{flag}"):
        resolve(translate([f"--{flag}", "3"], "search"))


@pytest.mark.parametrize("flag", ["child_keep_prob", "child_l2_reg", "child_num_layers"])
@pytest.mark.parametrize("value", ["much", "", "1,5"])
def test_a_value_that_is_no_number_is_refused_with_flag_and_value(flag: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--{flag} takes a number, got {value!r}"):
        translate([f"--{flag}={value}"], "search")


@pytest.mark.parametrize("word", ["--num_epochs", "--child_fixed_arc", "--dataset", "--data", "--strategy"])
def test_a_flag_at_the_end_wants_a_value(word: str) -> None:
    with pytest.raises(ConfigError, match=f"{word} wants a value"):
        translate(["RUN", word], "train")
