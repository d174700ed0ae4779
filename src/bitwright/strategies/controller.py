"""The LSTM controller of ENAS, trained with REINFORCE (Pham et al. 2018, arXiv:1802.03268, sections 2.2 and 2.4).

In ENAS's macro space it walks through the layers instead of a cell (`_macro_policy`), in that of recurrent cells
through their decisions (`_cell_policy`). In other spaces it has a distribution of its own for every decision in place
of the LSTM, as the controller that NAS-Bench-101 was searched with (Ying et al. 2019, arXiv:1902.09635).

An LSTM walks through a cell. For each node it chooses two earlier nodes by attention over what it remembers of them,
then two operations by a softmax. The reduction cell continues from the normal cell's state. A batch of architectures
is sampled, and learned from, at once.

`CLASSIC` holds the published constants. With them the bias of the two convolutions starts at 10, where tanh is
saturated: in float32 its gradient is zero, so the controller can never tell one convolution from the other. Its
additive attention scores a node almost independently of who asks (tanh is linear at small weights), and its bounds
keep it close to uniform. The defaults start from the uniform policy; the LSTM is told its position, attention is a
dot product, advantages are normalised, and an entropy bonus that fades keeps it from settling too early.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Architecture
from ..errors import ConfigError
from ..spaces import DecisionSpace
from ..spaces.enas_macro import EnasMacro
from ..spaces.enas_micro import CELLS, EnasMicro
from ..spaces.enas_rnn import EnasRnn
from ..trial import Objective, Trial
from . import Strategy
from ._cell_policy import CellPolicy
from ._lstm import Steps, attention, uniform
from ._macro_policy import MacroPolicy
from ._sample import Sample

CLASSIC: dict[str, Any] = {
    "learning_rate": 0.0035,
    "adam_beta1": 0.0,
    "adam_epsilon": 1e-3,
    "tanh_constant": 1.10,
    "op_tanh_reduce": 2.5,
    "attention": "additive",
    "position_embedding": False,
    "initial_conv_bias": 10.0,
    "fixed_conv_bias": 0.25,
    "normalise_advantages": False,
    "entropy_weight": 1e-4,
    "entropy_bonus": 0.0,
    "baseline_decay": 0.99,
    "baseline_start": 0.0,
}

# The constants of the widespread PyTorch program for recurrent cells.
RECURRENT: dict[str, Any] = {
    "hidden": 100,
    "learning_rate": 3.5e-4,
    "tanh_constant": 2.5,
    "temperature": 5.0,
    "position_embedding": False,
    "normalise_advantages": False,
    "reward_scale": 80.0,
    "per_decision": True,
    "entropy_weight": 1e-4,
    "entropy_bonus": 0.0,
    "baseline_decay": 0.95,
}

MOST_DRAWS = 100  # of as many architectures as are asked for


class Policy(nn.Module):
    """A distribution over the architectures of an ENAS cell space; 41,733 parameters with 64 units and 5 operations."""

    def __init__(
        self,
        nodes: int,
        operations: int,
        *,
        hidden: int,
        tanh_constant: float,
        op_tanh_reduce: float,
        temperature: float,
        attention: str,
        position_embedding: bool,
        op_bias: Sequence[float],
        fixed_bias: Sequence[float],
        seed: int,
    ) -> None:
        """op_bias: where the trained bias of the operations starts. fixed_bias: added in the normal cell, untrained."""
        super().__init__()
        self.nodes, self.hidden = nodes, hidden
        self.index_bound, self.op_bound, self.temperature = tanh_constant, tanh_constant / op_tanh_reduce, temperature
        weights = uniform(seed)
        self.input_weight, self.state_weight = weights(4 * hidden, hidden), weights(4 * hidden, hidden)
        self.start = weights(1, hidden)
        self.op_embedding = weights(operations, hidden)
        self.op_weight, self.op_bias = weights(operations, hidden), nn.Parameter(torch.tensor(list(op_bias)))
        self.attend_node, self.attend_state = weights(hidden, hidden), weights(hidden, hidden)
        self.attend = weights(1, hidden) if attention == "additive" else None
        self.position_embedding = weights(len(CELLS) * (2 + 5 * nodes), hidden) if position_embedding else None
        self.fixed_bias: Tensor
        self.register_buffer("fixed_bias", torch.tensor(list(fixed_bias)), persistent=False)

    def forward(self, count: int, choices: Tensor | None = None, generator: torch.Generator | None = None) -> Sample:
        """`count` samples: drawn with `generator`, or the given choices (count, 8 B) with their probabilities."""
        zeros = self.start.new_zeros(count, self.hidden)
        step = Steps(count, self.input_weight, self.state_weight, self.position_embedding)
        start = self.start.expand(count, -1)
        drawn: list[Tensor] = []
        logits: list[Tensor] = []

        def choose(scores: Tensor, position: int) -> Tensor:
            if choices is not None:
                choice = choices[:, position]
            else:
                choice = torch.multinomial(F.softmax(scores, dim=1), 1, generator=generator)[:, 0]
            drawn.append(choice)
            logits.append(scores)
            return choice

        every = torch.arange(count)
        order: list[int] = []
        for cell in range(len(CELLS)):
            anchors, keys = (
                [zeros, zeros],
                [F.linear(step(start), self.attend_node), F.linear(step(start), self.attend_node)],
            )
            for node in range(self.nodes):
                first = 4 * (self.nodes * cell + node)
                order += [first, first + 2, first + 1, first + 3]
                x = start
                known, remembered = torch.stack(keys, dim=1), torch.stack(anchors, dim=1)
                for side in (0, 2):
                    scores = attention(known, F.linear(step(x), self.attend_state), self.attend)
                    source = choose(self.index_bound * torch.tanh(scores / self.temperature), first + side)
                    x = remembered[every, source]
                for side in (1, 3):
                    scores = F.linear(step(x), self.op_weight, self.op_bias)
                    scores = self.op_bound * torch.tanh(scores / self.temperature)
                    if cell == 0:
                        scores = scores + self.fixed_bias
                    x = F.embedding(choose(scores, first + side), self.op_embedding)
                anchors.append(step(x))
                keys.append(F.linear(anchors[-1], self.attend_node))
        return self._summed(drawn, logits, order)

    def _summed(self, drawn: list[Tensor], logits: list[Tensor], order: list[int]) -> Sample:
        """All decisions' log-probabilities and entropies at once, padded to the widest."""
        width = max(scores.shape[1] for scores in logits)
        padded = torch.stack(
            [F.pad(scores, (0, width - scores.shape[1]), value=-torch.inf) for scores in logits], dim=1
        )
        log_p = F.log_softmax(padded, dim=2)
        choices = torch.stack(drawn, dim=1)
        chosen = log_p.gather(2, choices[:, :, None])[:, :, 0].sum(1)
        entropy = -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum((1, 2))
        in_string_order = torch.empty_like(choices)
        in_string_order[:, order] = choices
        return Sample(in_string_order, chosen, entropy)


class Independent(nn.Module):
    """A distribution over the architectures of any space: one over the options of each decision."""

    def __init__(self, options: Sequence[int], *, bound: float, temperature: float) -> None:
        super().__init__()
        self.bound, self.temperature = bound, temperature
        self.scores = nn.Parameter(torch.zeros(len(options), max(options)))
        self.absent: Tensor
        absent = torch.arange(max(options)) >= torch.tensor(list(options))[:, None]
        self.register_buffer("absent", absent, persistent=False)

    def forward(self, count: int, choices: Tensor | None = None, generator: torch.Generator | None = None) -> Sample:
        """As of Policy."""
        scores = self.bound * torch.tanh(self.scores / self.temperature)
        log_p = F.log_softmax(scores.masked_fill(self.absent, -torch.inf), dim=1)
        if choices is None:
            choices = torch.multinomial(log_p.exp(), count, replacement=True, generator=generator).T
        chosen = log_p[torch.arange(len(log_p)), choices].sum(1)
        entropy = -(log_p.exp() * log_p.masked_fill(self.absent, 0.0)).sum()
        return Sample(choices, chosen, entropy.expand(count))


class Controller(Strategy):
    """hidden: LSTM units.
    optimizer: adam or sgd.
    learning_rate: of either.
    adam_beta1, adam_beta2, adam_epsilon: of adam.
    clip_norm: largest norm of the gradient; 0 does not clip.
    tanh_constant: c in c tanh(logits), which bounds how certain a choice can become.
    op_tanh_reduce: divides c for operations.
    temperature: divides the logits before the tanh.
    attention: additive (published) or dot.
    position_embedding: add a trained vector to each input of the LSTM, by its position in the sequence.
    initial_conv_bias: where the trained bias of the convolutions starts; the other operations start at 0.
    fixed_conv_bias: added to the convolutions' logits in the normal cell and subtracted from the others'.
    reward_scale, reward_power: a reward is reward_scale * objective ** reward_power. The objective of recurrent cells
        is 1 / perplexity.
    per_decision: every decision has a reward of its own, that of the sample plus entropy_weight times the decision's
        own entropy, and a baseline of its own; of recurrent cells.
    discount: of per_decision: a decision's reward becomes the sum of its own and those of later decisions, each
        times discount to the power of how much later; 1 leaves it as it is.
    normalise_advantages: to mean 0 and deviation 1 within the trials that are told together.
    entropy_weight: reward per nat of a sample's entropy, as published.
    entropy_bonus: subtracted from the loss per nat of the policy's mean entropy.
    entropy_decay: the factor by which that bonus fades with every update.
    skip_target, skip_weight: of the macro space, the part of skip bits that should be set, and the weight in the loss
        of the divergence from it.
    baseline_decay: of the moving average of rewards that is subtracted from a reward.
    baseline_start: None starts it at the mean of the first trials.
    seed: of the initial weights.

    For recurrent cells op_tanh_reduce, attention and the biases of convolutions mean nothing.
    """

    def __init__(
        self,
        space: DecisionSpace,
        objective: Objective | None = None,
        *,
        hidden: int = 64,
        optimizer: Literal["adam", "sgd"] = "adam",
        learning_rate: float = 0.002,
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_epsilon: float = 1e-8,
        clip_norm: float = 0.0,
        tanh_constant: float = 5.0,
        op_tanh_reduce: float = 1.0,
        temperature: float = 1.0,
        attention: Literal["additive", "dot"] = "dot",
        position_embedding: bool = True,
        initial_conv_bias: float = 0.0,
        fixed_conv_bias: float = 0.0,
        reward_scale: float = 1.0,
        reward_power: float = 1.0,
        per_decision: bool = False,
        discount: float = 1.0,
        normalise_advantages: bool = True,
        entropy_weight: float = 0.0,
        entropy_bonus: float = 0.2,
        entropy_decay: float = 0.995,
        skip_target: float = 0.4,
        skip_weight: float = 0.8,
        baseline_decay: float = 0.95,
        baseline_start: float | None = None,
        seed: int = 0,
    ) -> None:
        if not space.decisions:
            raise ConfigError(f"the controller makes decisions; {space.name} has none")
        for name, value in (
            ("tanh_constant", tanh_constant),
            ("op_tanh_reduce", op_tanh_reduce),
            ("temperature", temperature),
            ("learning_rate", learning_rate),
            ("reward_scale", reward_scale),
            ("reward_power", reward_power),
        ):
            if not value > 0:
                raise ConfigError(f"controller: {name} is positive, got {value}")
        for name, value in (("adam_beta1", adam_beta1), ("adam_beta2", adam_beta2), ("baseline_decay", baseline_decay)):
            if not 0 <= value < 1:
                raise ConfigError(f"controller: {name} is in [0, 1), got {value}")
        if not 0 < skip_target < 1 or skip_weight < 0:
            raise ConfigError(
                "controller: skip_target is between 0 and 1 and skip_weight at least 0,"
                f" got {skip_target} and {skip_weight}"
            )
        if hidden < 1 or adam_epsilon < 0 or clip_norm < 0:
            raise ConfigError(
                "controller: hidden is at least 1, adam_epsilon and clip_norm at least 0,"
                f" got {hidden}, {adam_epsilon} and {clip_norm}"
            )
        if optimizer not in ("adam", "sgd"):
            raise ConfigError(f"controller: optimizer is adam or sgd, got {optimizer!r}")
        if not 0 < discount <= 1:
            raise ConfigError(f"controller: discount is above 0 and at most 1, got {discount}")
        if per_decision and not isinstance(space, EnasRnn):
            raise ConfigError(f"controller: per_decision is for enas_rnn, not for {space.name}")
        if discount < 1 and not per_decision:
            raise ConfigError("controller: discount needs per_decision")
        if attention not in ("additive", "dot"):
            raise ConfigError(f"controller: attention is additive or dot, got {attention!r}")
        self.space = space
        self.objective = objective or Objective()
        self.normalise_advantages = normalise_advantages
        self.entropy_weight, self.entropy_bonus, self.entropy_decay = entropy_weight, entropy_bonus, entropy_decay
        self.reward_scale, self.reward_power = reward_scale, reward_power
        self.per_decision, self.discount = per_decision, discount
        self.baseline_decay, self.clip_norm = baseline_decay, clip_norm
        # one for a sample, or one for each decision
        self._baselines = None if baseline_start is None else [baseline_start] * self._columns(space)
        self.updates = 0
        self.policy: Policy | MacroPolicy | CellPolicy | Independent
        if isinstance(space, EnasMicro):
            convolutions = [operation.kind == "separable" for operation in space.operations]
            self.policy = Policy(
                space.nodes,
                len(space.operations),
                hidden=hidden,
                tanh_constant=tanh_constant,
                op_tanh_reduce=op_tanh_reduce,
                temperature=temperature,
                attention=attention,
                position_embedding=position_embedding,
                op_bias=[initial_conv_bias if convolution else 0.0 for convolution in convolutions],
                fixed_bias=[fixed_conv_bias if convolution else -fixed_conv_bias for convolution in convolutions],
                seed=seed,
            )
        elif isinstance(space, EnasMacro):
            self.policy = MacroPolicy(
                space.layers,
                len(space.operations),
                hidden=hidden,
                tanh_constant=tanh_constant,
                op_tanh_reduce=op_tanh_reduce,
                temperature=temperature,
                attention=attention,
                position_embedding=position_embedding,
                skip_target=skip_target,
                skip_weight=skip_weight,
                seed=seed,
            )
        elif isinstance(space, EnasRnn):
            self.policy = CellPolicy(
                space.decisions,
                hidden=hidden,
                tanh_constant=tanh_constant,
                temperature=temperature,
                position_embedding=position_embedding,
                seed=seed,
            )
        else:
            options = [len(decision.options) for decision in space.decisions]
            self.policy = Independent(options, bound=tanh_constant, temperature=temperature)
        parameters = self.policy.parameters()
        self._optimizer: torch.optim.Optimizer
        if optimizer == "sgd":
            self._optimizer = torch.optim.SGD(parameters, lr=learning_rate, fused=True)
        else:
            betas = adam_beta1, adam_beta2
            self._optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=betas, eps=adam_epsilon, fused=True)
        self._figures: dict[str, float] = {}

    @torch.no_grad()
    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """What is not valid is drawn again, and uniformly where hardly anything that the policy draws is valid."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        found: list[Architecture] = []
        for _ in range(MOST_DRAWS):
            sample = self.policy(count, generator=generator)
            drawn = (tuple(choices) for choices in sample.choices.tolist())
            found += [Architecture(self.space.name, choices) for choices in drawn if self.space.is_valid(choices)]
            if len(found) >= count:
                return found[:count]
        return [*found, *(self.space.sample(rng) for _ in range(count - len(found)))]

    def tell(self, trials: Sequence[Trial]) -> None:
        """One update from the mean gradient of the trials."""
        if not trials:
            return
        choices = torch.tensor([trial.architecture.choices for trial in trials])
        sample = self.policy(len(trials), choices)
        log_p, rewards = self._rewarded(sample, [self.objective(trial.measurement) for trial in trials])
        if self._baselines is None:
            self._baselines = rewards.mean(0).tolist()
        baseline = torch.tensor(self._baselines, dtype=torch.float64)
        differences = []
        for reward in rewards:  # the baseline has seen a reward before it is subtracted from it, as published
            baseline = baseline - (1 - self.baseline_decay) * (baseline - reward)
            differences.append(reward - baseline)
        self._baselines = baseline.tolist()
        advantages = torch.stack(differences).float()
        if self.normalise_advantages and len(trials) > 1:
            advantages = (advantages - advantages.mean(0)) / (advantages.std(0) + 1e-8)
        bonus = self.entropy_bonus * self.entropy_decay**self.updates
        loss = -(log_p * advantages).sum(1).mean() - bonus * sample.entropy.mean()
        if sample.penalty is not None:
            loss = loss + sample.penalty.mean()
        self.updates += 1
        self._optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.clip_norm or math.inf)
        self._optimizer.step()
        self._figures = {
            "loss": float(loss.detach()),
            "entropy": float(sample.entropy.detach().mean()),
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "gradient_norm": float(norm),
            "baseline": sum(self._baselines) / len(self._baselines),
        }

    def _rewarded(self, sample: Sample, objectives: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Log-probabilities, and the float64 rewards of what they are of: (S, 1), or (S, decisions)."""
        raw = torch.tensor(objectives, dtype=torch.float64)[:, None] ** self.reward_power * self.reward_scale
        if not self.per_decision or sample.decisions is None:
            return sample.log_probability[:, None], raw + self.entropy_weight * sample.entropy.detach()[:, None]
        log_p, entropies = sample.decisions
        rewards = raw + self.entropy_weight * entropies.detach()
        if self.discount < 1:
            for position in reversed(range(rewards.shape[1] - 1)):
                rewards[:, position] += self.discount * rewards[:, position + 1]
        return log_p, rewards

    def _columns(self, space: DecisionSpace) -> int:
        """How many rewards a sample has."""
        return len(space.decisions) if self.per_decision else 1

    @property
    def baseline(self) -> float | None:
        """The moving average of rewards, of all decisions together; None before the first trial."""
        return None if self._baselines is None else sum(self._baselines) / len(self._baselines)

    def figures(self) -> Mapping[str, float]:
        return self._figures

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "baselines": self._baselines,
            "updates": self.updates,
            "figures": self._figures,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch would share its tensors
        self._baselines = None if state["baselines"] is None else list(state["baselines"])
        self.updates, self._figures = state["updates"], dict(state["figures"])
