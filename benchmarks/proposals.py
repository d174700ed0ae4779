"""The cost of a proposed architecture, for every strategy and for those of others.

Asking for and telling 1,000 trials, ten at a time; 200 for strategies that fit a model anew for every ten. Spaces are
NAS-Bench-201's, 6 choices of 5 options, and one of 40 such choices. NSGA-II has a population of 20 and one objective
everywhere. Nothing is evaluated: a reward is the sum of the choices. pymoo and Optuna have a row where they are
installed: pymoo's NSGA-II crosses integers uniformly and mutates them polynomially; Optuna's studies are in memory. In
the small space, where a population soon knows all that is near, NSGA-II here and in pymoo draws most children more than
once, as neither asks for the same again. With a population of 100, asked for as a whole, pymoo takes 56 us for each of
40 choices, NSGA-II here 20 us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from bitwright.architecture import Decision
from bitwright.nasbench.regret import STRATEGIES
from bitwright.spaces import DecisionSpace
from bitwright.spaces.nasbench201 import Nasbench201
from bitwright.trial import Measurement, Trial

from .timing import Table, interleaved

ROUNDS, BATCH, POPULATION = 5, 10, 20
TRIALS, FEW = 1000, 200


class Choices(DecisionSpace):
    name = "choices"
    decisions = tuple(Decision(f"choice/{i}", ("a", "b", "c", "d", "e")) for i in range(40))


SPACES: Mapping[str, DecisionSpace] = {"6 choices": Nasbench201(), "40 choices": Choices()}


@dataclass(frozen=True)
class Candidate:
    """search: asks for and tells so many trials, with a seed."""

    search: Callable[[DecisionSpace, int, int], None]
    trials: int = TRIALS


def run() -> Table:
    candidates = {
        name.replace("_", " "): Candidate(_ours(name), FEW if name == "predictor_guided" else TRIALS)
        for name in STRATEGIES
    }
    if find_spec("pymoo"):
        candidates["pymoo, NSGA-II"] = Candidate(_pymoo)
    if find_spec("optuna"):
        candidates["Optuna, random"] = Candidate(_optuna("RandomSampler"))
        candidates["Optuna, NSGA-II"] = Candidate(_optuna("NSGAIISampler", population_size=POPULATION))
        candidates["Optuna, TPE"] = Candidate(_optuna("TPESampler"), FEW)
    table = Table(["median (quartiles), us per architecture", *SPACES])
    found = {key: _measured(candidates, space) for key, space in SPACES.items()}
    table.rows += [[name, *(by_name[name] for by_name in found.values())] for name in candidates]
    table.notes.append(f"{ROUNDS} rounds, candidates in turn.")
    return table


def _measured(candidates: Mapping[str, Candidate], space: DecisionSpace) -> dict[str, str]:
    def timed(candidate: Candidate) -> Callable[[int], None]:
        return lambda i: candidate.search(space, candidate.trials, i)

    seconds = interleaved({name: timed(each) for name, each in candidates.items()}, ROUNDS, warmup=1)
    told = {}
    for name, taken in seconds.items():
        low, middle, high = np.quantile(taken / candidates[name].trials * 1e6, [0.25, 0.5, 0.75])
        told[name] = f"{middle:,.1f} ({low:,.1f}-{high:,.1f})"
    return told


def _most(space: DecisionSpace) -> int:
    return sum(len(decision.options) - 1 for decision in space.decisions)


def _ours(name: str) -> Callable[[DecisionSpace, int, int], None]:
    def search(space: DecisionSpace, trials: int, seed: int) -> None:
        strategy, most = STRATEGIES[name].make(space), _most(space)
        rng = np.random.default_rng(seed)
        for start in range(0, trials, BATCH):
            asked = strategy.ask(BATCH, rng)
            strategy.tell([Trial(start + k, a, Measurement(sum(a.choices) / most)) for k, a in enumerate(asked)])

    return search


def _pymoo(space: DecisionSpace, trials: int, seed: int) -> None:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.pm import PolynomialMutation
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.problems.static import StaticProblem

    highest = np.array([len(decision.options) - 1 for decision in space.decisions])
    problem = Problem(n_var=len(highest), n_obj=1, xl=0, xu=highest, vtype=int)
    mutation = PolynomialMutation(repair=RoundingRepair())
    algorithm = NSGA2(
        POPULATION, sampling=IntegerRandomSampling(), crossover=UniformCrossover(prob=0.9), mutation=mutation
    )
    algorithm.setup(problem, termination=("n_gen", trials), seed=seed, verbose=False)
    for _ in range(trials // POPULATION):
        asked = algorithm.ask()
        rewards = asked.get("X").sum(1, keepdims=True) / highest.sum()
        Evaluator().eval(StaticProblem(problem, F=-rewards), asked)
        algorithm.tell(infills=asked)


def _optuna(sampler: str, **options: Any) -> Callable[[DecisionSpace, int, int], None]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def search(space: DecisionSpace, trials: int, seed: int) -> None:
        most = _most(space)
        study = optuna.create_study(
            direction="maximize", sampler=getattr(optuna.samplers, sampler)(seed=seed, **options)
        )
        for _ in range(trials // BATCH):
            for trial in [study.ask() for _ in range(BATCH)]:
                choices = [trial.suggest_categorical(d.name, range(len(d.options))) for d in space.decisions]
                study.tell(trial, sum(choices) / most)

    return search
