"""An agent: an actor and a learner connected by an adder."""

from typing import NamedTuple

from rlws.actor import Actor
from rlws.adders import Adder
from rlws.learner import Learner
from rlws.numerics.memo import remembered
from rlws.settings import Settings
from rlws.types import EnvironmentSpec


class Agent(NamedTuple):
    """The pure parts of an algorithm; every trainer runs them unedited."""

    actor: Actor
    learner: Learner
    adder: Adder
    evaluator: Actor  # acts in evaluation and videos, usually greedily


class AgentConfig(Settings):
    """The settings of an agent, and how to make it; zoo modules call theirs `Config`.

    For equal settings and specs `make` returns one and the same agent, as far as they can be
    compared: so trainers need not compile for it again.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "make" in vars(cls):
            cls.make = remembered(cls.make)  # type: ignore[method-assign]

    def make(self, spec: EnvironmentSpec) -> Agent:
        """Returns the agent for environments of this spec.

        Float settings may be JAX tracers, so that a sweep over them is one `jax.vmap`.

        Raises:
          SettingError: the agent cannot act in such environments; both sides are named.
        """
        raise NotImplementedError
