"""An agent: an actor and a learner connected by an adder."""

import dataclasses

from rlws.actor import Actor
from rlws.adders import Adder
from rlws.learner import Learner
from rlws.numerics.memo import Remembered
from rlws.settings import Settings
from rlws.types import EnvironmentSpec


@dataclasses.dataclass(frozen=True)
class Agent:
    """The pure parts of an algorithm; every trainer runs them unedited.

    A variant is made by `dataclasses.replace`, as one of settings is.
    """

    actor: Actor
    learner: Learner
    adder: Adder
    evaluator: Actor  # acts in evaluation and videos, usually greedily


class AgentConfig(Settings):
    """The settings of an agent, and how to make it; zoo modules call theirs `Config`.

    Where programs are shared (`rlws.numerics.memo`), `make` returns one and the same agent for
    equal settings and specs, so that trainers need not compile for it again.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "make" in vars(cls):
            cls.make = Remembered(cls.make)  # type: ignore[method-assign]

    def make(self, spec: EnvironmentSpec) -> Agent:
        """Returns the agent for environments of this spec.

        Float settings may be JAX tracers, so that a sweep over them is one `jax.vmap`.

        Raises:
          SettingError: the agent cannot act in such environments; both sides are named.
        """
        raise NotImplementedError
