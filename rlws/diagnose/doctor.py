"""The doctor: asks the parts of an agent, tries it on probes, and says where to look."""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from dm_env.specs import DiscreteArray

from rlws.agent import Agent, AgentConfig
from rlws.diagnose import probing
from rlws.diagnose.actors import MASK, check_actor, check_log_prob, check_mask
from rlws.diagnose.adders import check_adder
from rlws.diagnose.applicable import (
    UNKNOWN,
    check_compiles,
    is_continuous,
    no_mask_because,
    reasons_against,
    takes_bounds,
)
from rlws.diagnose.check import Check, Question, Verdict, locate
from rlws.diagnose.credit import ITSELF
from rlws.diagnose.entropy import check_entropy
from rlws.diagnose.gradients import check_gradients_of_outputs
from rlws.diagnose.keys import check_keys
from rlws.diagnose.learners import check_learner
from rlws.diagnose.memory import check_memory
from rlws.diagnose.probes import PROBES, Probe
from rlws.diagnose.subject import Subject
from rlws.diagnose.tabular import Tabular, make_table
from rlws.diagnose.toy import discount_name, exploring, toy
from rlws.diagnose.units import ACTIONS, LOSSES, check_units
from rlws.diagnose.value_gradients import ENDS
from rlws.settings import SettingError, change, choose
from rlws.types import EnvironmentSpec

STEPS = 6_000
PARTS = ("actor", "adder", "learner")
BOUNDED = ("P4", "P5", "P9")  # probes that show whether actions fill their bounds
GAMMA = Question(
    "agent: discount",
    "values are compared with those of the agent's discount",
    "a setting called discount, or gamma",
    "values were not looked at: say the discount, --discount 0.9",
)


class Report(NamedTuple):
    """What the doctor found."""

    agent: str
    checks: list[Check]
    seconds: float

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        """The checks that failed, parts before probes: the first cause first.

        Of a learner, what it makes of ends: where that is wrong, so is what other checks compare.
        """
        failed = [check for check in self.checks if check.verdict == "fail"]
        first = next((i for i, x in enumerate(failed) if x.name.startswith("learner")), 0)
        exact = ENDS.name, ITSELF.name
        ends = [check for check in failed if check.name in exact]
        others = [check for check in failed if check.name not in exact]
        return [*others[:first], *ends, *others[first:]]

    @property
    def consequences(self) -> list[Check]:
        """The failures that may come of the first one: to be asked again once that is mended."""
        return self.failures[1:]


def diagnose(
    config: AgentConfig,
    *,
    actions: str = "",
    discount: float | None = None,
    steps: int = STEPS,
    seeds: int = probing.SEEDS,
    only: Iterable[str] = (),
    keep: Collection[str] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Returns what is wrong with an agent, from its parts and from problems with known answers.

    Args:
      config: of the agent; a toy version of it is looked at, see `toy`.
      actions: "discrete" or "continuous"; by default what the agent can be made for.
      discount: the agent's gamma, where it is no setting of that name.
      steps: of each probe and seed, at most.
      seeds: of each probe.
      only: names, or their beginnings, of the checks to run ("adder", "P6"); default: all.
      keep: names of settings that are not to be changed for the toy version.
      progress: is called with a line on what is going on.

    Raises:
      SettingError: the agent cannot be made for a probe.
    """
    began, only = time.perf_counter(), tuple(only)
    name = f"{type(config).__module__}:{type(config).__qualname__}"
    given, config = config, toy(config, keep)
    continuous = is_continuous(config, actions)
    setting = discount_name(config)
    gamma = getattr(config, setting) if discount is None and setting else discount
    spec = Tabular(make_table(), continuous).spec()
    known = [*PARTS, *(probe.name for probe in PROBES)]
    for text in only:
        if not text or not any(x.startswith(text) or text.startswith(x) for x in known):
            choose("only: check", text, known)
    if not isinstance(made := config.make(spec), Agent):
        raise SettingError(f"{name}.make must return an Agent, got {made!r}")
    if broken := check_compiles(config.make(spec), spec):  # nothing else can be asked
        return Report(name, [broken], time.perf_counter() - began)
    no_mask = "continuous actions" if continuous else no_mask_because(config)
    asked = [part for part in PARTS if not only or any(x.startswith(part) for x in only)]
    checks = list[Check]()
    if asked:
        progress("parts: actor, adder, learner")
        checks += _check_parts(config, spec, asked, gamma, bool(no_mask))
    agent = config.make(spec)
    wanted = lambda check: not only or check.name.startswith(only)
    probes = [probe for probe in PROBES if wanted(probe)]
    if any(check.name == MASK.name and check.verdict == "note" for check in checks):
        no_mask = "its actor does not look at masks, see above"
    reasons = reasons_against(agent, spec, continuous, gamma, no_mask)
    why_not = lambda probe: reasons[probe.needs or ("values" if probe.values else "")]
    found: dict[str, probing.Found] = {}
    fit = [probe for probe in probes if not why_not(probe)]
    # What shows masks is another program, as its observations are others; so, where one probe has
    # to, all do, and nothing is forbidden in the others.
    masked = any(probe.needs == "mask" for probe in fit)
    wide = continuous and takes_bounds(config)
    environment = partial(Tabular, continuous=continuous, wide=wide, masked=masked)
    # What is known to be ill need not be given time to get well.
    ill = any(check.verdict == "fail" for check in checks)
    longer = 1 if ill else probing.LONGER
    for probe, one in probing.train(config, fit, environment, gamma, steps, seeds, longer):
        progress(f"{probe.name}: {one.right.sum()} of {seeds} seeds right")
        found[probe.name] = one
    again = [x for x in fit if not (x.values or x.advisory or found[x.name].passes(x))]
    if again and not ill and (hotter := exploring(given, keep)) != config:
        for probe, one in probing.train(hotter, again, environment, gamma, steps, seeds, longer):
            progress(f"{probe.name}, with its own entropy: {one.right.sum()} of {seeds} right")
            found[probe.name] = one
    for probe in probes:
        if reason := why_not(probe):
            checks.append(Question(probe.name, probe.isolates).skip(reason))
        else:
            checks.append(_judge(probe, found[probe.name], gamma, agent))
    if any(x.verdict == "fail" and x.name.startswith(BOUNDED) for x in checks):
        matters = lambda x: x.verdict == "note" and x.name in (ACTIONS.name, LOSSES.name)
        checks = [x._replace(verdict="fail") if matters(x) else x for x in checks]
    if reasons["values"] == UNKNOWN and not only:
        checks.append(GAMMA.answer(False, "none", locate(agent.learner, "loss"), wrong="note"))
    if not (checks := [*filter(wanted, checks)]):
        raise SettingError(f"only must name a check, got {', '.join(only)}; adder, P6, ...")
    return Report(name, checks, time.perf_counter() - began)


def _check_parts(
    config: AgentConfig,
    spec: EnvironmentSpec,
    asked: list[str],
    gamma: float | None,
    no_mask: bool,
) -> Iterator[Check]:
    """Yields the checks of actor, adder and learner: what must hold whatever the algorithm."""
    fields = {field.name for field in dataclasses.fields(config)}
    once = {"epochs": 1, "minibatches": 1}  # one gradient, of the whole batch
    whole = change(config, {name: value for name, value in once.items() if name in fields})
    subject = Subject(whole, spec, gamma)
    if "actor" in asked:
        yield from check_actor(subject)
    yield from check_adder(subject)
    if subject.batches:
        if "actor" in asked:
            yield from check_log_prob(subject)
            yield from check_memory(subject)
        if "learner" in asked:
            yield from check_learner(subject)
            yield from check_gradients_of_outputs(subject)
            yield from check_entropy(subject)
        yield from check_keys(subject)
    if "actor" in asked and not isinstance(spec.actions, DiscreteArray) and takes_bounds(config):
        yield from check_units(subject)
    if "actor" in asked and not no_mask:
        with_mask = Tabular(make_table(), masked=True).spec()
        yield check_mask(config.make(with_mask), with_mask)


def _judge(probe: Probe, found: probing.Found, gamma: float | None, agent: Agent) -> Check:
    right = found.right
    tally = f"{right.sum()} of {len(right)} seeds"
    if probe.values is not None and gamma is not None:
        expected = np.array(probe.values(gamma))
        got = np.median(found.values, axis=0)[: len(expected)]
        show = lambda x: " ".join(f"{v:.2f}" for v in x)
        texts = f"V = {show(expected)}", f"V = {show(got)}, {tally}"
    else:
        expected, got = np.array(probe.best), np.median(found.returns)
        texts = f"return {probe.best:g}", f"return {got:.3g}, {tally}"
    if found.passes(probe):
        texts = texts[0], f"{texts[1]} in {found.steps:,} steps"
        return Check(probe.name, probe.isolates, *texts, "pass")
    # Who remembers without a core of the network's may be after something else.
    own = probe.needs == "memory" and not agent.learner.network.recurrent
    verdict: Verdict = "note" if probe.advisory or own else "fail"
    where = (agent.actor, "select_action") if probe.of_actor else (agent.learner, "loss")
    advice = probe.advice if isinstance(probe.advice, str) else probe.advice(expected, got)
    if found.halted:
        advice = "updates came to NaN or infinity: look for a division by 0, or the log of one"
    return Check(probe.name, probe.isolates, *texts, verdict, locate(*where), advice)
