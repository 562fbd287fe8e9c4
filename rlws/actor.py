"""Acting: pure functions of parameters, one timestep and a key."""

from typing import Any

import dm_env

from rlws.networks import Network
from rlws.settings import Settings
from rlws.types import Action, Key, Params


class Actor(Settings):
    """Chooses actions for ONE environment; trainers vmap, jit and scan it."""

    def initial_state(self) -> Any:
        """Returns what the actor carries from step to step; nothing by default."""
        return ()

    def select_action(
        self, params: Params, timestep: dm_env.TimeStep, state: Any, key: Key
    ) -> tuple[Action, Any, Any]:
        """Returns the action, the next actor state and the extras to record with the row.

        Called on every row; on a LAST one the action is ignored. A recurrent actor resets its state
        where `timestep.first()`.
        """
        raise NotImplementedError


class PolicyActor(Actor):
    """Samples from the `policy` head of a network, or takes its mode."""

    network: Network
    greedy: bool = False

    def initial_state(self) -> Any:
        return self.network.initial_state()

    def select_action(self, params, timestep, state, key):
        outputs, state = self.network.step(params, timestep.observation, timestep.first(), state)
        action = outputs.policy.mode() if self.greedy else outputs.policy.sample(key)
        return action, state, ()
