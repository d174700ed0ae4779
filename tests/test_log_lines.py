"""The logs of the ENAS programs: what they print is read, and what is written here as well."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.log_lines import (
    SampledArchitecture,
    architecture_lines,
    child_line,
    controller_line,
    evaluation_lines,
    read_log,
)
from bitwright.spaces.enas_micro import EnasMicro
from bitwright.train.fit import epoch_rows

# The sample in the documentation of the quantized ENAS of Kant (2018).
SAMPLE = """\
epoch = 181   ch_step = 77850  loss = 0.127491   lr = 0.0456   |g| = 0.2030   tr_acc = 108/128   mins = 549.07
ctrl_step = 5430   loss = 0.266   ent = 49.17   lr = 0.0035   |g| = 0.0002   acc = 0.9688   bl = 0.97   mins = 550.96
Here are 10 architectures
[0 0 0 1 1 0 1 3 1 1 0 3 1 1 1 0 0 4 0 0]  # Denotes the normal cell
[1 0 1 4 1 1 1 0 1 2 0 4 0 1 4 0 0 0 0 2]  # Denotes the reduction cell
val_acc = 0.9531
--------------------------------------------------------------------------------
Epoch 181: Eval
Eval at 77830
valid_accuracy: 0.9612
test_accuracy: 0.9622
"""
NORMAL = (0, 0, 0, 1, 1, 0, 1, 3, 1, 1, 0, 3, 1, 1, 1, 0, 0, 4, 0, 0)
REDUCTION = (1, 0, 1, 4, 1, 1, 1, 0, 1, 2, 0, 4, 0, 1, 4, 0, 0, 0, 0, 2)


def test_the_child_line_of_the_published_sample_is_read() -> None:
    assert read_log(SAMPLE.splitlines()).child == [
        {
            "epoch": 181,
            "ch_step": 77850,
            "loss": 0.127491,
            "lr": 0.0456,
            "|g|": 0.2030,
            "tr_acc": 108,
            "tr_acc_of": 128,
            "mins": 549.07,
        }
    ]


def test_the_controller_line_of_the_published_sample_is_read() -> None:
    assert read_log(SAMPLE.splitlines()).controller == [
        {
            "ctrl_step": 5430,
            "loss": 0.266,
            "ent": 49.17,
            "lr": 0.0035,
            "|g|": 0.0002,
            "acc": 0.9688,
            "bl": 0.97,
            "mins": 550.96,
        }
    ]


def test_the_architectures_of_the_published_sample_are_read() -> None:
    log = read_log(SAMPLE.splitlines())
    assert log.architectures == [SampledArchitecture(NORMAL, REDUCTION, 0.9531)]
    assert log.best == log.architectures[0]
    assert EnasMicro(ops="enas").parse(log.best.text).choices == NORMAL + REDUCTION


def test_the_evaluation_of_the_published_sample_is_read() -> None:
    assert read_log(SAMPLE.splitlines()).evaluations == [
        {"epoch": 181, "valid_accuracy": 0.9612, "test_accuracy": 0.9622}
    ]


def test_the_steps_of_the_published_sample_are_those_of_55_000_images_in_batches_of_128() -> None:
    steps = len(epoch_rows(55_000, 128, seed=0, epoch=0, device=torch.device("cpu")))
    assert steps == math.ceil(55_000 / 128) == 430
    log = read_log(SAMPLE.splitlines())
    assert divmod(int(log.child[0]["ch_step"]), steps) == (int(log.child[0]["epoch"]), 20)
    assert int(log.controller[0]["ctrl_step"]) == 181 * 30


def test_lines_without_blanks_around_the_equals_sign_are_read() -> None:
    lines = (
        "epoch=0     ch_step=50     loss=2.302585 lr=0.0500   |g|=12.3456 tr_acc= 13/160 mins=0.21",
        "ctrl_step=0      loss=-0.266  ent=57.19 lr=0.0035 |g|=2e-05    acc=0.1375 bl=0.00  mins=9.38",
    )
    log = read_log(lines)
    assert log.child == [
        {
            "epoch": 0,
            "ch_step": 50,
            "loss": 2.302585,
            "lr": 0.05,
            "|g|": 12.3456,
            "tr_acc": 13,
            "tr_acc_of": 160,
            "mins": 0.21,
        }
    ]
    assert log.controller[0]["loss"] == -0.266
    assert log.controller[0]["|g|"] == 2e-05


def test_an_array_that_numpy_broke_into_lines_is_read() -> None:
    lines = [
        "[0 0 0 1 1 0 1 3 1 1",
        " 0 3 1 1 1 0 0 4 0 0]",
        "[1 0 1 4 1 1 1 0 1 2",
        " 0 4 0 1 4 0 0 0 0 2]",
        "val_acc=0.5",
    ]
    assert read_log(lines).architectures == [SampledArchitecture(NORMAL, REDUCTION, 0.5)]


def test_an_accuracy_belongs_to_the_two_arrays_before_it_and_to_no_earlier_ones() -> None:
    lines = ["[0 1]", "[2 3]", "[4 5]", "val_acc = 0.5", "val_acc = 0.75", "[6 7]", "val_acc = 0.875"]
    assert read_log(lines).architectures == [SampledArchitecture((2, 3), (4, 5), 0.5)]


def test_the_best_is_the_first_of_the_most_accurate() -> None:
    samples = [SampledArchitecture((i,), (i,), accuracy) for i, accuracy in enumerate((0.5, 0.9375, 0.9375))]
    assert read_log(architecture_lines(samples).splitlines()).best == samples[1]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Building LSTM",
        "epoch of the dinosaurs",
        "ch_step = 5",
        "Epoch: Eval",
        "val_acc = high",
        "val_acc = 0.5",  # without architectures before it
        "[]",
        "[0 1 x]",
        "[0 1]",
        "valid_accuracy: 0.5",  # without an evaluation before it
        "\x00\x01 = \x02",
        "-" * 80,
    ],
)
def test_a_line_of_another_kind_is_passed_over(line: str) -> None:
    log = read_log([line, *SAMPLE.splitlines()])
    assert log == read_log(SAMPLE.splitlines())


def test_a_line_that_breaks_off_gives_the_fields_it_has() -> None:
    log = read_log(["epoch = 3     ch_step = 1290   loss = 0.5", "ctrl_step = 90   loss ="])
    assert log.child == [{"epoch": 3, "ch_step": 1290, "loss": 0.5}]
    assert log.controller == [{"ctrl_step": 90}]


STEPS = st.integers(0, 10**8)
TENTHS_OF_THOUSANDTHS = st.integers(0, 10**7).map(lambda n: n / 10**4)
HUNDREDTHS = st.integers(0, 10**6).map(lambda n: n / 100)


@given(STEPS, STEPS, st.integers(0, 10**8), TENTHS_OF_THOUSANDTHS, TENTHS_OF_THOUSANDTHS, STEPS, STEPS, HUNDREDTHS)
def test_a_written_child_line_reads_back(
    epoch: int, step: int, loss: int, rate: float, norm: float, correct: int, batch: int, minutes: float
) -> None:
    line = child_line(
        epoch=epoch,
        step=step,
        loss=loss / 10**6,
        rate=rate,
        norm=norm,
        correct=correct,
        batch=batch,
        minutes=minutes,
    )
    assert "\n" not in line
    assert read_log([line]).child == [
        {
            "epoch": epoch,
            "ch_step": step,
            "loss": loss / 10**6,
            "lr": rate,
            "|g|": norm,
            "tr_acc": correct,
            "tr_acc_of": batch,
            "mins": minutes,
        }
    ]


@given(
    STEPS,
    st.integers(-(10**6), 10**6),
    HUNDREDTHS,
    TENTHS_OF_THOUSANDTHS,
    TENTHS_OF_THOUSANDTHS,
    TENTHS_OF_THOUSANDTHS,
    st.integers(-(10**4), 10**4),
    HUNDREDTHS,
)
def test_a_written_controller_line_reads_back(
    step: int, loss: int, entropy: float, rate: float, norm: float, accuracy: float, baseline: int, minutes: float
) -> None:
    line = controller_line(
        step=step,
        loss=loss / 1000,
        entropy=entropy,
        rate=rate,
        norm=norm,
        accuracy=accuracy,
        baseline=baseline / 100,
        minutes=minutes,
    )
    assert read_log([line]).controller == [
        {
            "ctrl_step": step,
            "loss": loss / 1000,
            "ent": entropy,
            "lr": rate,
            "|g|": norm,
            "acc": accuracy,
            "bl": baseline / 100,
            "mins": minutes,
        }
    ]


CELLS = st.lists(st.integers(0, 99), min_size=4, max_size=40).map(tuple)


@given(st.lists(st.builds(SampledArchitecture, CELLS, CELLS, st.integers(0, 10**4).map(lambda n: n / 10**4))))
def test_written_architectures_read_back(samples: list[SampledArchitecture]) -> None:
    text = architecture_lines(samples)
    assert text.startswith(f"Here are {len(samples)} architectures")
    assert read_log(text.splitlines()).architectures == samples


def test_a_written_evaluation_reads_back() -> None:
    text = evaluation_lines(epoch=7, step=3010, accuracy=0.9612)
    assert read_log(text.splitlines()).evaluations == [{"epoch": 7, "valid_accuracy": 0.9612}]


def test_written_lines_have_the_fields_of_the_published_sample_in_their_order() -> None:
    ours = child_line(
        epoch=181, step=77850, loss=0.127491, rate=0.0456, norm=0.2030, correct=108, batch=128, minutes=549.07
    )
    theirs = SAMPLE.splitlines()[0]
    assert ours.split() == theirs.split()
    ours = controller_line(
        step=5430, loss=0.266, entropy=49.17, rate=0.0035, norm=0.0002, accuracy=0.9688, baseline=0.97, minutes=550.96
    )
    assert ours.split() == SAMPLE.splitlines()[1].split()
    assert (
        architecture_lines([SampledArchitecture(NORMAL, REDUCTION, 0.9531)]).split()[4:]
        == (" ".join(line.partition("#")[0] for line in SAMPLE.splitlines()[3:7])).split()
    )


@pytest.mark.parametrize(
    "line",
    ["epoch = .. ch_step = 5", "valid_accuracy: ...", "val_acc = 1.2.3", "ctrl_step = x", "[0 1 2", "[]", "Epoch x:"],
)
def test_malformed_lines_are_passed_over(line):
    arrays = ["[0 1 0 1]", "[1 0 1 0]", "val_acc = 0.5000"]
    log = read_log(["Epoch 1: Eval", "[0 1]", "[1 0]", line, *arrays])
    assert [a.accuracy for a in log.architectures] == [0.5]


def test_numbers_that_are_none_are_read_as_such():
    (fields,) = read_log(["epoch = 1 ch_step = 2 loss = nan lr = 1e+20 |g| = inf"]).child
    assert math.isnan(fields["loss"])
    assert fields["lr"] == 1e20
    assert fields["|g|"] == math.inf
