"""The log lines of the ENAS programs, written and read.

    epoch = 181   ch_step = 77850  loss = 0.127491   lr = 0.0456   |g| = 0.2030   tr_acc = 108/128   mins = 549.07
    ctrl_step = 5430   loss = 0.266   ent = 49.17   lr = 0.0035   |g| = 0.0002   acc = 0.9688   bl = 0.97   mins = 551
    Here are 10 architectures
    [0 2 1 4 ... ]
    [1 3 1 4 ... ]
    val_acc = 0.9688
    --------

The reader takes the lines of Pham et al.'s program (no blanks around "="), of its descendants, and of this package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

RULE = "-" * 80
NUMBER = r"-?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|nan|inf)(?![.\w])"


@dataclass(frozen=True)
class SampledArchitecture:
    """One of the architectures listed after a controller phase; accuracy on one validation minibatch."""

    normal: tuple[int, ...]
    reduction: tuple[int, ...]
    accuracy: float

    @property
    def text(self) -> str:
        """The string that the final training takes."""
        return " ".join(map(str, (*self.normal, *self.reduction)))


@dataclass
class SearchLog:
    """What a log says, in its order. child, controller: the fields of a line by name. evaluations: by epoch."""

    child: list[dict[str, float]] = field(default_factory=list)
    controller: list[dict[str, float]] = field(default_factory=list)
    architectures: list[SampledArchitecture] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> SampledArchitecture:
        """The first of those with the highest accuracy."""
        return max(self.architectures, key=lambda a: a.accuracy)


def child_line(
    *, epoch: int, step: int, loss: float, rate: float, norm: float, correct: int, batch: int, minutes: float
) -> str:
    return (
        f"epoch = {epoch:<5d} ch_step = {step:<6d} loss = {loss:<8.6f}   lr = {rate:<8.4f} |g| = {norm:<8.4f}"
        f" tr_acc = {correct:>3d}/{batch:<3d}   mins = {minutes:<10.2f}"
    )


def controller_line(
    *,
    step: int,
    loss: float,
    entropy: float,
    rate: float,
    norm: float,
    accuracy: float,
    baseline: float,
    minutes: float,
) -> str:
    return (
        f"ctrl_step = {step:<6d} loss = {loss:<7.3f} ent = {entropy:<5.2f}   lr = {rate:<6.4f}   |g| = {norm:<8.4f}"
        f" acc = {accuracy:<6.4f}   bl = {baseline:<5.2f}   mins = {minutes:<.2f}"
    )


def architecture_lines(samples: Sequence[SampledArchitecture]) -> str:
    lines = [f"Here are {len(samples)} architectures"]
    for sample in samples:
        lines += [_array(sample.normal), _array(sample.reduction), f"val_acc = {sample.accuracy:.4f}", RULE]
    return "\n".join(lines)


def evaluation_lines(*, epoch: int, step: int, accuracy: float) -> str:
    return f"Epoch {epoch}: Eval\nEval at {step}\nvalid_accuracy: {accuracy:.4f}"


def read_log(lines: Iterable[str]) -> SearchLog:
    """Read a log; lines of other kinds are passed over."""
    log = SearchLog()
    arrays: list[tuple[int, ...]] = []
    pending = ""
    for line in lines:
        text = line.split("#")[0].strip()
        if pending and re.fullmatch(r"[\d\s]*\]?", text):  # numpy breaks long arrays into several lines
            text = f"{pending} {text}"
        pending = ""
        if text.startswith("[") and "]" not in text:
            pending = text
            continue
        if match := re.fullmatch(r"\[([\d\s]+)\]", text):
            arrays.append(tuple(int(word) for word in match[1].split()))
        elif match := re.match(rf"val_acc\s*=\s*({NUMBER})", text):
            if len(arrays) >= 2:
                log.architectures.append(SampledArchitecture(arrays[-2], arrays[-1], float(match[1])))
            arrays = []
        elif text.startswith("epoch") and "ch_step" in text:
            log.child.append(_fields(text))
        elif text.startswith("ctrl_step"):
            log.controller.append(_fields(text))
        elif match := re.match(r"Epoch\s+(\d+): Eval", text):
            log.evaluations.append({"epoch": float(match[1])})
        elif (match := re.match(rf"(valid_accuracy|test_accuracy):\s*({NUMBER})", text)) and log.evaluations:
            log.evaluations[-1][match[1]] = float(match[2])
    return log


def _fields(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, number, whole in re.findall(rf"([\w|]+)\s*=\s*({NUMBER})(?:\s*/\s*(\d+))?", text):
        found[name] = float(number)
        if whole:
            found[f"{name}_of"] = float(whole)
    return found


def _array(values: Sequence[int]) -> str:
    return f"[{' '.join(map(str, values))}]"
