"""Which questions an agent can be asked: what it acts by, whether it compiles, what it lacks."""

import dataclasses
from traceback import extract_tb

import jax

from rlws.agent import Agent, AgentConfig
from rlws.diagnose.actors import remembers
from rlws.diagnose.check import Check, Question, locate
from rlws.diagnose.subject import NUM_ENVS
from rlws.diagnose.tabular import Tabular, make_table
from rlws.diagnose.value_estimates import has_quantiles, has_values
from rlws.environments.checks import AgentFault
from rlws.settings import SettingError
from rlws.tracking.stderr import line_of
from rlws.trainers import initial
from rlws.trainers.tracebacks import place_of
from rlws.types import EnvironmentSpec

CHECKS_OF_LOSSES = ("check", "signs")  # functions that look at what a loss returned
UNKNOWN = "the discount is not known: give it"  # so nothing is asked of values
SHAPES = Question("agent: shapes", "what actor and learner compute can be compiled", "no error")


def is_continuous(config: AgentConfig, actions: str = "") -> bool:
    """Returns whether to look at an agent with continuous actions: if asked for, or if it must."""
    if actions:
        return actions == "continuous"
    try:
        _acts(config, False)
    except SettingError as error:
        try:
            _acts(config, True)
        except SettingError:
            if isinstance(error, AgentFault):  # which is told with its line
                return False
            raise error from None
        return True
    return False


def takes_bounds(config: AgentConfig) -> bool:
    """Returns whether an agent can be made for actions with bounds that are not -1 and 1."""
    try:
        config.make(Tabular(make_table(), True, wide=True).spec())
    except SettingError:
        return False
    return True


def _acts(config: AgentConfig, continuous: bool) -> None:
    """Raises where an agent cannot be made for actions of a kind, or acts by others."""
    spec = Tabular(make_table(), continuous).spec()
    if not isinstance(agent := config.make(spec), Agent):
        return  # which is told later
    try:
        params = jax.eval_shape(lambda: agent.learner.init(jax.random.key(0)).params)
        initial.example_row(agent, spec, params)
    except AgentFault:
        raise
    except Exception:  # likewise
        return


def check_compiles(agent: Agent, spec: EnvironmentSpec) -> Check | None:
    """Returns what fails where the agent cannot even be compiled, with the line; None: it can."""
    actor = agent.actor
    row = lambda params: initial.example_row(dataclasses.replace(agent, actor=actor), spec, params)
    try:
        state = jax.eval_shape(lambda: initial.init(agent, spec, 0, NUM_ENVS))
        actor = agent.evaluator
        jax.eval_shape(row, state.learner.params)
    except AgentFault as error:
        where = locate(actor, "select_action")
        return SHAPES.holds(False, "an error", where)._replace(advice=str(error))
    except SettingError as error:  # which says what to do
        if not any(frame.name in CHECKS_OF_LOSSES for frame in extract_tb(error.__traceback__)):
            raise
        where = locate(agent.learner, "loss")
        return SHAPES.holds(False, "an error", where)._replace(advice=str(error))
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
        return SHAPES.holds(False, "an error", place_of(error))._replace(advice=text)
    return None


def reasons_against(
    agent: Agent, spec: EnvironmentSpec, continuous: bool, gamma: float | None, no_mask: str
) -> dict[str, str]:
    """Returns why probes that need something do not apply, "" where they do."""
    discrete_only = "continuous actions" if continuous else ""
    no_values = UNKNOWN if gamma is None else ""
    return {
        "": "",
        "values": no_values if has_values(agent, spec) else "no value function",
        "quantiles": no_values if has_quantiles(agent, spec) else "no quantiles",
        "memory": "" if remembers(agent, spec) else "no recurrent core",
        "continuous": "" if continuous else "discrete actions",
        "discrete": discrete_only,
        "exploration": discrete_only,
        "mask": no_mask,
    }


def no_mask_because(config: AgentConfig) -> str:
    """Returns why an agent cannot be shown action masks, "" if it can."""
    spec = Tabular(make_table(), masked=True).spec()
    try:
        agent = config.make(spec)
        jax.eval_shape(lambda: initial.init(agent, spec, 0, NUM_ENVS))
    except Exception as error:  # whatever networks, or a loss, make of a dict
        return f"takes no action mask: {line_of(error)}"
    return ""
