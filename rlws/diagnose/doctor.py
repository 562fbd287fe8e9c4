"""The doctor: runs parts and ladder on an agent, and says where to look."""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from rlws.agent import Agent, AgentConfig
from rlws.diagnose import ladder, parts
from rlws.diagnose.actors import check_mask
from rlws.diagnose.check import Check, Verdict, locate
from rlws.diagnose.probes import Probe
from rlws.diagnose.probes import ladder as all_probes
from rlws.diagnose.small import small
from rlws.diagnose.tabular import Tabular, blank
from rlws.settings import SettingError, change
from rlws.tracking.stderr import line_of
from rlws.trainers import core

STEPS = 6_000
ADVISORY = {"P10 deep sea", "P12 rewards / 1000", "P12 rewards x 1000"}


class Report(NamedTuple):
    """What the doctor found."""

    agent: str
    settings: dict[str, Any]  # those that made it small
    checks: list[Check]
    seconds: float

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        """The checks that failed, parts before probes: causes before symptoms."""
        return [check for check in self.checks if check.verdict == "fail"]


def diagnose(
    config: AgentConfig,
    *,
    actions: str = "",
    discount: float | None = None,
    steps: int = STEPS,
    seeds: int = ladder.SEEDS,
    only: Iterable[str] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Returns what is wrong with an agent, from its parts and from problems with known answers.

    Args:
      config: of the agent; a small version of it is looked at, see `small`.
      actions: "discrete" or "continuous"; by default what the agent can be made for.
      discount: the agent's gamma, where it is no setting of that name.
      steps: of each probe and seed, at most.
      seeds: of each probe.
      only: names, or their beginnings, of the checks to run ("adder", "P6"); default: all.
      progress: is called with a line on what is going on.

    Raises:
      SettingError: the agent cannot be made for a probe.
    """
    began, name = time.perf_counter(), _name(config)
    wanted = lambda check: not only or any(check.startswith(start) for start in only)
    config, settings = small(config)
    continuous = is_continuous(config, actions)
    gamma = discount if discount is not None else getattr(config, "discount", None)
    checks = []

    def add(check):
        if wanted(check.name):
            checks.append(check)

    spec = Tabular(blank(), continuous).spec()
    if broken := parts.check_compiles(config.make(spec), spec):  # nothing else can be asked
        return Report(name, settings, [broken], time.perf_counter() - began)
    only = tuple(only)
    no_mask = "continuous actions" if continuous else _no_mask(config)
    asked = [p for p in parts.PARTS if not only or any(start.startswith(p) for start in only)]
    if asked:
        progress("parts: actor, adder, learner")
        once = {"epochs": 1, "minibatches": 1}  # one gradient, of the whole batch
        fields = {field.name for field in dataclasses.fields(config)}
        whole = change(config, {k: v for k, v in once.items() if k in fields})
        for check in parts.check_all(whole, spec, asked, gamma):
            add(check)
        if "actor" in asked and not no_mask:
            with_mask = Tabular(blank(), masked=True).spec()
            add(check_mask(config.make(with_mask), with_mask))
    agent = config.make(spec)
    probes = [probe for probe in all_probes() if wanted(probe.name)]
    reasons = {probe.name: _not_for(probe, agent, continuous, gamma, no_mask) for probe in probes}
    fit = [probe for probe in probes if not reasons[probe.name]]
    found: dict[str, ladder.Found] = {}
    if fit:
        # What shows masks is another program, as its observations are others.
        for masked in (False, True):
            group = [probe for probe in fit if (probe.needs == "mask") == masked]
            if not group:
                continue
            how = gamma, continuous, steps, seeds, ADVISORY, masked
            for done, some in ladder.run(config, group, *how):
                right = sum(one.right.all() for one in some.values())
                progress(f"probes: {done:,} of {steps:,} steps, {right} of {len(group)} right")
            found |= some
    for probe in probes:
        if reason := reasons[probe.name]:
            add(Check(probe.name, probe.isolates, "", reason, "skip"))
        else:
            add(_judge(probe, found[probe.name], gamma, agent, seeds))
    return Report(name, settings, checks, time.perf_counter() - began)


def _name(config: AgentConfig) -> str:
    return f"{type(config).__module__}:{type(config).__qualname__}"


def is_continuous(config: AgentConfig, actions: str = "") -> bool:
    """Returns whether to look at an agent with continuous actions: if asked for, or if it must."""
    if actions:
        return actions == "continuous"
    try:
        config.make(Tabular(blank(), False).spec())
    except SettingError as error:
        try:
            config.make(Tabular(blank(), True).spec())
        except SettingError:
            raise error from None
        return True
    return False


def _not_for(
    probe: Probe, agent: Agent, continuous: bool, gamma: float | None, no_mask: str
) -> str:
    """Returns why a probe does not apply, "" where it does."""
    if probe.needs == "memory" and not agent.learner.network.recurrent:
        return "no recurrent core"
    if probe.needs == "continuous" and not continuous:
        return "discrete actions"
    if probe.needs in ("discrete", "exploration") and continuous:
        return "continuous actions"
    if probe.needs == "mask":
        return no_mask
    if probe.values is None:
        return ""
    if not ladder.has_values(agent):
        return "no value function"
    return "the discount is not known: give it" if gamma is None else ""


def _no_mask(config: AgentConfig) -> str:
    """Returns why an agent cannot be shown action masks, "" if it can."""
    spec = Tabular(blank(), masked=True).spec()
    try:
        agent = config.make(spec)
        params = jax.eval_shape(lambda: agent.learner.init(core.seed_key()).params)
        core.example_row(agent, spec, params)
    except Exception as error:  # whatever a network makes of a dict
        return f"takes no action mask: {line_of(error)}"
    return ""


def _judge(probe: Probe, found: ladder.Found, gamma: Any, agent: Agent, seeds: int) -> Check:
    right = int(found.right.sum())
    tally = f"{right} of {seeds} seeds"
    if found.values is not None and probe.values is not None:
        expected = np.array(probe.values(gamma))
        got = np.median(found.values, axis=0)
        show = lambda x: " ".join(f"{v:.2f}" for v in x)
        texts = f"V = {show(expected)}", f"V = {show(got)}, {tally}"
        component, advice = _value_fault(probe, expected, got, agent)
    else:
        texts = f"return {probe.best:g}", f"return {np.median(_known(found.returns)):.3g}, {tally}"
        component, advice = _policy_fault(probe, agent)
    verdict: Verdict = "pass" if right == seeds else "fail"
    if verdict == "pass":
        component = advice = ""
        texts = texts[0], f"{texts[1]} in {found.steps:,} steps"
    elif probe.name in ADVISORY:
        verdict = "note"
    return Check(probe.name, probe.isolates, *texts, verdict, component, advice)


def _known(x: np.ndarray | None) -> np.ndarray:
    assert x is not None
    return x


def _value_fault(probe, expected, got, agent):
    loss, where = locate(agent.learner, "loss"), probe.name[:2]
    if where == "P1":
        return loss, "values do not move towards their targets: look at the value loss and its sign"
    if where == "P2":
        return loss, (
            "values do not tell observations apart: look for (B,) - (B, 1) that broadcasts, for "
            "observations and targets that are one step apart, and at the batch axis"
        )
    if where == "P3":
        if got[0] > 0.97 * expected[1]:
            return loss, "the discount is ignored: multiply what follows by gamma"
        if got[0] < 0.5 * expected[0]:
            return loss, (
                "what follows is not bootstrapped: the target network never moves, rewards are one "
                "step off, or the value of the next observation is missing"
            )
        return (
            loss,
            "values of earlier states are off: look at traces and the power of the discount",
        )
    if where == "P6" and got.mean() < expected.mean():
        return loss, (
            "truncation is treated as termination: bootstrap from the last observation, let "
            "trajectory.discount, not trajectory.last, say what ends, and cut traces at episode "
            "ends with trajectory.trace()"
        )
    if where == "P6":
        return loss, "returns go on into the next episode: cut traces with trajectory.trace()"
    return loss, (
        "values of the last step are bootstrapped: multiply what follows by trajectory.discount, "
        "and cut traces at episode ends with trajectory.trace()"
    )


def _policy_fault(probe, agent):
    loss, act = (locate(agent.learner, "loss"), locate(agent.actor, "select_action"))
    where = probe.name.split()[0]
    if where == "P4":
        return loss, "the worse action is preferred: look at the sign of the advantage"
    if where == "P5":
        return loss, (
            "actions do not depend on observations as they should: look at the order of "
            "observations, actions and advantages, and at what the policy is given"
        )
    if where == "P8":
        return act, "memory does not reach the choice: look at resets, and the core state recorded"
    if where == "P9":
        return act, "the bound is not reached: look at how actions are squashed or clipped"
    if where == "P11":
        return act, (
            "forbidden actions are chosen: networks.compose masks policies and action values by "
            "observation['action_mask']; what explores must look at it, too (random_action)"
        )
    if where == "P13":
        return loss, (
            "the value of the next state is not that of the best action there: look at which "
            "action the target takes"
        )
    if where == "P12":
        return loss, "learning depends on the size of rewards: scale_rewards makes it independent"
    return act, "nothing explores: an intrinsic reward such as the term RND would"
