"""Resolving an experiment: presets, files and options, which of them wins, and what a mistake in them says."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from bitwright import catalogue
from bitwright.costs.weight_bits import WeightBits
from bitwright.errors import BitwrightError, ConfigError
from bitwright.experiment import (
    Experiment,
    FinalOptions,
    LanguageExperiment,
    SearchOptions,
    opened,
    presets,
    read_yaml,
    resolve,
)
from bitwright.modules import Weights
from bitwright.recurrent.flags import import_flags
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.strategies.controller import CLASSIC, RECURRENT, Controller
from bitwright.strategies.random_search import RandomSearch
from bitwright.train.recipe import Recipe

COMPONENTS, DEFAULTS, GIVEN = Experiment.COMPONENTS, Experiment.DEFAULTS, Experiment.GIVEN
RECIPE_OPTIONS = sorted(inspect.signature(Recipe).parameters)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes a YAML file and returns the arguments that name it."""
    written: list[Path] = []

    def write(text: str) -> list[str]:
        path = tmp_path / f"options{len(written)}.yaml"
        path.write_text(text, encoding="utf-8")
        written.append(path)
        return ["--config", str(path)]

    return write


def refusal(arguments: list[str], preset: str | None = None) -> str:
    """The one line with which these options are refused."""
    with pytest.raises(ConfigError) as caught:
        resolve(arguments, preset)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def words(text: str) -> set[str]:
    return set(text.replace(":", " ").replace(",", " ").split())


# presets

TEXT = [preset for preset in presets() if preset.startswith("enas-rnn-")]
IMAGES = [preset for preset in presets() if preset not in TEXT]


@pytest.mark.parametrize("preset", presets())
def test_every_preset_resolves_to_all_sections(preset: str) -> None:
    values = resolve([], preset)
    sections = {"dataset", "space", "strategy", "supernet", "search", "training"}
    sections |= {"model", "shared"} if preset in TEXT else {"final", "evaluator", "relaxation"}
    assert values.keys() == sections | {"seed", "threads", "device"}


@pytest.mark.parametrize("preset", TEXT)
def test_every_preset_of_text_makes_its_components(preset: str, tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text("some words and more words\n")
    experiment = opened(resolve(["--dataset.root", str(tmp_path)], preset))
    assert isinstance(experiment, LanguageExperiment)
    assert experiment.strategy().state_dict() is not None
    assert experiment.corpus.words == ("some", "words", "and", "more", "<eos>")


def test_the_preset_of_the_pytorch_program_holds_its_constants() -> None:
    values = resolve([], "enas-rnn-ptb")
    assert values["strategy"].items() >= RECURRENT.items()
    imported = import_flags("", defaults=True).options
    sections = {"recipe": "supernet", "supernet": "shared", "controller": "strategy"}
    for option, value in imported.items():
        section, _, name = option.partition(".")
        if section not in ("run", "space") and name not in ("nodes", "evaluation_batch", "save_every", "entropy_decay"):
            assert values[sections.get(section, section)][name] == value, option


MICRONET = ("micronet-4b", "micronet-4b5b")  # of color images and one architecture, which no strategy chooses
OF_A_RUN = ("precision",)  # of a network that was trained before


@pytest.mark.parametrize("preset", [preset for preset in IMAGES if preset not in (*MICRONET, *OF_A_RUN)])
def test_every_preset_makes_its_components(preset: str) -> None:
    experiment = Experiment(resolve(["--dataset.name", "digits"], preset))
    assert experiment.space.network(next(experiment.space.covering())).nodes
    assert experiment.final_space.network(next(experiment.final_space.covering())).nodes
    if experiment.space.decisions:
        assert experiment.strategy().state_dict() is not None
    assert experiment.rounds >= 1


@pytest.mark.parametrize("preset", MICRONET)
def test_the_micronet_presets_make_the_published_network(preset: str, tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("n01440764", "n15075141"):  # the first and the last of the 1,000 classes
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / part / name / "0.png")
    experiment = Experiment(resolve(["--dataset.root", str(tmp_path)], preset))
    network = experiment.final_space.network(experiment.final_space.architecture(()))
    weights = Weights([network])
    counted = sum(p.numel() for name, p in weights.named_parameters() if not name.endswith("/log2_range"))
    assert counted == 6_857_568  # of the float network, as published; bit widths add learned ranges


@pytest.mark.parametrize("preset", presets())
def test_a_resolved_configuration_resolves_to_itself(preset: str, file: Any) -> None:
    changed = ["--search.rewards", "40"] if preset in TEXT else ["--search.budgets", "{macs: 1e6}"]
    values = resolve(["--seed", "3", *changed], preset)
    assert resolve(file(yaml.safe_dump(values, sort_keys=False))) == values


@pytest.mark.parametrize("preset", presets())
def test_every_preset_has_a_description(preset: str) -> None:
    assert len(presets()[preset].split()) > 3


def test_presets_name_the_data_set_they_are_for() -> None:
    of_images = [preset for preset in IMAGES if preset not in ("classic", *OF_A_RUN)]
    named = {preset: resolve([], preset)["dataset"]["name"] for preset in of_images}
    known = set(catalogue.names("datasets"))
    expected = {preset: next(iter(known.intersection(preset.split("-"))), "imagenet") for preset in named}
    assert named == expected


def test_the_preset_classic_holds_the_published_constants() -> None:
    assert resolve([], "classic")["strategy"].items() >= CLASSIC.items()


def test_of_several_presets_the_later_wins_and_the_rest_stays() -> None:
    values = resolve([], "digits-demo,classic")
    assert values["strategy"] == resolve([], "classic")["strategy"]
    assert values | {"strategy": None} == resolve([], "digits-demo") | {"strategy": None}


# which value wins


def test_without_options_every_value_is_its_constructors_default() -> None:
    values = resolve([])
    constructors = {section: catalogue.find(kind, DEFAULTS[section]) for section, kind in COMPONENTS.items()}
    constructors |= {"supernet": Recipe, "training": Recipe, "search": SearchOptions, "final": FinalOptions}
    for section, constructor in constructors.items():
        parameters = inspect.signature(constructor).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.name not in GIVEN.get(section, ())}
        defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
        if section == "search":
            defaults["budgets"] = {}
        given = {name: value for name, value in values[section].items() if name not in ("name", "root")}
        assert given == defaults, section


def test_a_preset_wins_over_the_constructors_default() -> None:
    assert resolve([])["supernet"]["epochs"] == 30
    assert resolve([], "digits-demo")["supernet"]["epochs"] == 80


def test_a_file_wins_over_the_preset(file: Any) -> None:
    values = resolve(file("supernet: {epochs: 44}"), "digits-demo")
    assert values["supernet"]["epochs"] == 44
    assert values["supernet"]["batch"] == 32  # of the preset


def test_a_later_file_wins_over_an_earlier_one(file: Any) -> None:
    first = file("seed: 1\nsupernet: {epochs: 4, batch: 8}")
    values = resolve([*first, *file("supernet: {epochs: 5}")])
    assert (values["seed"], values["supernet"]["epochs"], values["supernet"]["batch"]) == (1, 5, 8)


@pytest.mark.parametrize("first", ["file", "option"])
def test_the_command_line_wins_over_files_wherever_it_stands(first: str, file: Any) -> None:
    option, config = ["--supernet.batch", "6"], file("supernet: {batch: 5}")
    arguments = config + option if first == "file" else option + config
    assert resolve(arguments, "digits-demo")["supernet"]["batch"] == 6


def test_a_later_option_wins_over_an_earlier_one() -> None:
    assert resolve(["--seed", "1", "--seed=2"])["seed"] == 2


def test_a_file_may_start_from_presets(file: Any) -> None:
    values = resolve(file("preset: digits-demo,classic\nstrategy: {learning_rate: 0.5}"))
    assert values["supernet"] == resolve([], "digits-demo")["supernet"]
    assert values["strategy"] == resolve([], "classic")["strategy"] | {"learning_rate": 0.5}
    assert "preset" not in values


def test_an_empty_file_changes_nothing(file: Any) -> None:
    assert resolve(file("{}"), "digits-demo") == resolve([], "digits-demo")


@pytest.mark.parametrize("text", ["1e-4", "0.0001", "1.0e-04"])
def test_numbers_in_a_file_may_have_any_notation(text: str, file: Any) -> None:
    assert resolve(file(f"supernet: {{lr_min: {text}}}"))["supernet"]["lr_min"] == 0.0001


# components


def test_naming_another_component_drops_the_options_of_the_first(file: Any) -> None:
    config = file("strategy: {name: controller, learning_rate: 0.5}")
    assert resolve([*config, "--strategy.name", "random_search"])["strategy"] == {"name": "random_search"}
    assert resolve([*config, *file("strategy: {name: random_search}")])["strategy"] == {"name": "random_search"}


def test_naming_the_same_component_again_keeps_its_options(file: Any) -> None:
    config = file("strategy: {name: controller, learning_rate: 0.5}")
    for again in (["--strategy.name", "controller"], file("strategy: {name: controller}")):
        assert resolve([*config, *again])["strategy"]["learning_rate"] == 0.5


def test_a_component_named_in_a_later_file_takes_the_options_given_with_it(file: Any) -> None:
    first = file("dataset: {name: mnist, root: here, validation: 77}")
    values = resolve([*first, *file("dataset: {name: image_folder, root: there, size: 16}")])
    assert values["dataset"] == {
        "name": "image_folder",
        "root": "there",
        "size": 16,
        "validation": 0.1,
        "test": 0.15,
    }


def test_an_option_of_the_component_that_was_dropped_is_unknown() -> None:
    text = refusal(["--strategy.name", "random_search", "--strategy.hidden", "3"])
    assert "--strategy.hidden" in text


@pytest.mark.parametrize("section", COMPONENTS)
@pytest.mark.parametrize("by", ["option", "option=", "file"])
def test_an_unknown_component_is_refused_with_the_known_ones(section: str, by: str, file: Any) -> None:
    arguments = {
        "option": [f"--{section}.name", "nonsense"],
        "option=": [f"--{section}.name=nonsense"],
        "file": file(f"{section}: {{name: nonsense}}"),
    }[by]
    text = refusal(arguments)
    assert "'nonsense'" in text
    assert set(catalogue.names(COMPONENTS[section])) <= words(text)


@pytest.mark.parametrize("preset", ["nonsense", "", "digits-demo,nonsense", "digits-demo,"])
def test_an_unknown_preset_is_refused_with_the_known_ones(preset: str, file: Any) -> None:
    assert set(presets()) <= words(refusal([], preset))
    assert set(presets()) <= words(refusal(file(f"preset: '{preset}'")))


# unknown options


@pytest.mark.parametrize("option", ["--training.epochz=3", "--training.learning_rate=3"])
def test_an_unknown_option_is_refused_with_those_of_its_section(option: str) -> None:
    text = refusal([option])
    assert option in text
    assert set(RECIPE_OPTIONS) <= words(text)


@pytest.mark.parametrize("option", ["--nonsense=3", "--nonsense.epochs=3", "--epochs=3", "-x", "stray"])
def test_an_unknown_section_is_refused_with_the_known_ones(option: str) -> None:
    text = refusal([option])
    assert option in text
    assert {*COMPONENTS, "supernet", "search", "final", "training", "seed"} <= words(text)


@pytest.mark.parametrize("option", ["image", "classes", "pixel_mean"])
def test_what_the_data_set_decides_is_no_option_of_a_space(option: str) -> None:
    assert option not in words(refusal([f"--space.{option}", "3"]).partition("has:")[2])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nonsense: 3", "nonsense"),
        ("trainings: {epochs: 3}", "trainings"),
        ("training: {epoch: 3}", "epoch"),
        ("space: {classes: 3}", "classes"),
        ("strategy: {name: random_search, hidden: 3}", "hidden"),
        ("config: other.yaml", "config"),
    ],
)
def test_an_unknown_option_in_a_file_is_named(text: str, named: str, file: Any) -> None:
    assert named in refusal(file(text))


# wrong values


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("training.epochs", "many"),
        ("training.epochs", "1.5"),
        ("training.lr", "fast"),
        ("training.flip", "maybe"),
        ("training.optimizer", "lion"),
        ("training.schedule", "sine"),
        ("space.nodes", "several"),
        ("space.wiring", "optical"),
        ("space.reductions", "[one]"),
        ("search.budgets", "5"),
        ("search.budgets", "{macs: few}"),
        ("final.cells", "many"),
        ("dataset.validation", "some"),
        ("strategy.hidden", "1.5"),
        ("seed", "lucky"),
        ("threads", "all"),
    ],
)
@pytest.mark.parametrize("by", ["option", "file"])
def test_a_value_of_the_wrong_type_is_refused_by_name(option: str, value: str, by: str, file: Any) -> None:
    *section, name = option.split(".")
    text = f"{section[0]}: {{{name}: {value}}}" if section else f"{name}: {value}"
    assert option in refusal(file(text) if by == "file" else [f"--{option}", value])


@pytest.mark.parametrize(
    "option",
    [
        *("supernet.epochs=0", "supernet.batch=1", "supernet.lr=0", "supernet.lr_min=-1", "supernet.momentum=1"),
        *("supernet.warmup=1", "supernet.weight_decay=-1", "supernet.clip_norm=-1", "supernet.restart_period=0"),
        *("training.epochs=-3", "training.ema=1", "training.drop_path=1", "training.label_smoothing=-0.1"),
        *("search.updates=0", "search.batch=0", "search.samples=0", "search.candidates=0", "search.standalone=-1"),
        *("search.standalone_epochs=0", "search.strength=-1", "seed=-1", "threads=-1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name_and_value(option: str) -> None:
    name, value = option.split("=")
    text = refusal([f"--{option}"])
    assert name.split(".")[-1] in text
    assert value in text


def test_precisions_written_as_numbers_are_taken_or_refused_by_name(file: Any) -> None:
    try:
        outcome = str(resolve(file("space: {precisions: [2, 4]}"))["space"]["precisions"])
    except ConfigError as error:
        outcome = str(error)
    assert outcome == "['2', '4']" or ("space.precisions" in outcome and "\n" not in outcome)


def test_epochs_that_do_not_fill_the_rounds_are_refused() -> None:
    text = refusal(["--supernet.epochs", "10", "--search.warmup_epochs", "3", "--search.round_epochs", "2"])
    assert {"10", "3", "2"} <= words(text)


def test_a_warm_up_that_leaves_no_round_is_refused() -> None:
    assert "warm-up" in refusal(["--supernet.epochs", "10", "--search.warmup_epochs", "10"])


def test_the_rounds_share_the_epochs_behind_the_warm_up() -> None:
    options = ["--supernet.epochs", "11", "--search.warmup_epochs", "3", "--search.round_epochs", "2"]
    assert Experiment(resolve(options)).rounds == 4


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "mps", "meta", ""])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    assert repr(device) in refusal([f"--device={device}"])


def test_the_device_auto_is_one_that_is_there() -> None:
    assert Experiment(resolve([])).device == torch.device("cuda" if torch.cuda.is_available() else "cpu")


# budgets


def test_a_budget_names_a_cost_that_is_computed() -> None:
    experiment = Experiment(resolve(["--search.budgets", "{weight_bits: 2e4}", "--search.strength", "1"]))
    assert experiment.costs == {"weight_bits": WeightBits()}
    assert experiment.objective.budgets == {"weight_bits": 20000.0}
    assert experiment.objective.strength == 1


def test_a_budget_of_an_unknown_cost_is_refused_with_the_known_ones() -> None:
    assert set(catalogue.names("costs")) <= words(refusal(["--search.budgets", "{flops: 3}"]))


@pytest.mark.parametrize("budget", ["0", "-1", ".nan"])
def test_a_budget_that_is_not_positive_is_refused(budget: str, file: Any) -> None:
    assert "macs" in refusal(file(f"search: {{budgets: {{macs: {budget}}}}}"))


def test_the_budgets_of_a_file_replace_those_of_the_preset(file: Any) -> None:
    assert resolve([], "digits-demo")["search"]["budgets"] == {"weight_precision": 2}
    assert resolve(file("search: {budgets: {macs: 5}}"), "digits-demo")["search"]["budgets"] == {"macs": 5}
    assert resolve(["--search.budgets", "{}"], "digits-demo")["search"]["budgets"] == {}


# files


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"3", b"- a\n- b\n", b"just words", b"a: [", b"a: b: c", b"\xff\xfe\x00", b"a:\n\tb: 1\n"),
        *(b"a: 1\n---\nb: 2\n", b'!!python/object/apply:os.system ["true"]\n'),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused_by_name(name: str, tmp_path: Path) -> None:
    assert str(tmp_path / name) in refusal(["--config", str(tmp_path / name)])


def test_config_without_a_file_is_refused() -> None:
    assert "--config" in refusal(["--config"])


# what an experiment makes of its options


def test_the_space_is_that_of_the_data_set() -> None:
    space = Experiment(resolve(["--space.nodes", "2", "--space.precisions", '["2", "4"]'])).space
    assert isinstance(space, EnasMicro)
    assert (space.image, space.classes, space.nodes, space.precisions) == ((1, 8, 8), 10, 2, ("2", "4"))


def test_final_options_change_the_final_space_alone() -> None:
    experiment = Experiment(resolve(["--final.filters", "7", "--final.dropout", "0.25"]))
    assert isinstance(experiment.space, EnasMicro) and isinstance(experiment.final_space, EnasMicro)
    assert (experiment.space.filters, experiment.space.dropout) == (20, 0.0)
    assert (experiment.final_space.filters, experiment.final_space.dropout) == (7, 0.25)


def test_without_final_options_the_final_space_is_the_searched_one() -> None:
    experiment = Experiment(resolve([], "digits-demo"))
    assert experiment.final_space == experiment.space


def test_a_final_network_of_other_depth_places_its_reductions_anew() -> None:
    options = ["--space.cells", "3", "--space.reductions", "[0]", "--final.cells", "8"]
    space = Experiment(resolve(options)).final_space
    assert isinstance(space, EnasMicro)
    assert space.reduction_cells == EnasMicro(cells=8).reduction_cells
    space = Experiment(resolve([*options, "--final.reductions", "[5]"])).final_space
    assert isinstance(space, EnasMicro)
    assert space.reduction_cells == (5,)


def test_a_final_option_that_the_space_does_not_have_is_refused() -> None:
    experiment = Experiment(resolve(["--final.cells", "3"], "macro-digits"))
    with pytest.raises(ConfigError, match="enas_macro has no option cells; of final it has: filters, reductions, drop"):
        _ = experiment.final_space


def test_the_strategy_is_the_named_one_with_its_options() -> None:
    strategy = Experiment(resolve(["--strategy.temperature", "2", "--space.nodes", "2"])).strategy()
    assert isinstance(strategy, Controller)
    assert strategy.policy.temperature == 2
    assert isinstance(Experiment(resolve(["--strategy.name", "random_search"])).strategy(), RandomSearch)


def test_the_seed_decides_the_initial_strategy() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        strategy = Experiment(resolve(["--seed", str(seed), "--space.nodes", "2"])).strategy()
        assert isinstance(strategy, Controller)
        return list(strategy.policy.state_dict().values())

    assert all(map(torch.equal, weights(1), weights(1)))
    assert not all(map(torch.equal, weights(1), weights(2)))


def test_a_strategy_that_suits_no_such_space_is_refused() -> None:
    with pytest.raises(BitwrightError, match="temperature"):
        Experiment(resolve(["--strategy.temperature", "0", "--space.nodes", "2"])).strategy()


def test_the_data_set_is_loaded_once() -> None:
    experiment = Experiment(resolve([]))
    assert experiment.dataset is experiment.dataset


@pytest.mark.parametrize("preset", ["classic", "original-mnist", "original-cifar10"])
def test_the_presets_with_published_constants_are_those_of_the_controller(preset: str) -> None:
    strategy = resolve([], preset)["strategy"]
    assert {name: strategy[name] for name in CLASSIC} == CLASSIC
