"""An agent: an actor and a learner connected by an adder."""

from typing import NamedTuple

from rlws.actor import Actor
from rlws.adders import Adder
from rlws.learner import Learner
from rlws.settings import Settings
from rlws.types import EnvironmentSpec


class Agent(NamedTuple):
    """The pure parts of an algorithm; every trainer runs them unedited."""

    actor: Actor
    learner: Learner
    adder: Adder
    evaluator: Actor  # acts in evaluation and videos, usually greedily


class AgentConfig(Settings):
    """The settings of an agent, and how to make it; zoo modules call theirs `Config`."""

    def make(self, spec: EnvironmentSpec) -> Agent:
        """Returns the agent for environments of this spec.

        Float settings may be JAX tracers, so that a sweep over them is one `jax.vmap`.

        Raises:
          SettingError: the agent cannot act in such environments; both sides are named.
        """
        raise NotImplementedError
