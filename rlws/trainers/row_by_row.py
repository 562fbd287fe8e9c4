"""An update after every row: adding, learning and acting in one dispatch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent
from rlws.environments import rules
from rlws.numerics import counts, trees
from rlws.numerics.memo import remembered_of
from rlws.numerics.sequential import sequential
from rlws.settings import SettingError
from rlws.trainers import acting, core, initial
from rlws.trainers.blocks import kept
from rlws.trainers.host_environments import HostEnvironments
from rlws.trainers.learning import Learning, copied
from rlws.trainers.row_buffer import RowBuffer
from rlws.trainers.trainer import Control
from rlws.types import EnvironmentSpec, Row


class Carry(NamedTuple):
    """What one turn leaves to the next, beside the state of the agent."""

    row: Row  # leaves [B, ...]: what was last seen, and the answer to it
    begun: Any  # whether there is one
    before: Any  # the actors' memory when they saw it, leaves [B, ...]
    actor: Any  # and now
    clock: Any  # as `acting.clock`, then the learner's key, then how many updates there may be


@remembered_of
def compile_turn(agent: Agent, spec: EnvironmentSpec, num_envs: int) -> Any:
    """Returns the program that adds a row, learns and acts, all in one dispatch.

    From state and carry, donated, and timesteps (leaves [B, ...]) it comes to the next ones, to
    actions, and to two flags: whether a rule is broken, and whether the run halts.
    """
    updates = agent.adder.schedule(num_envs).updates

    def turn(state: core.State, carry: Carry, timestep: dm_env.TimeStep):
        row, begun, _, actor, clock = carry
        rows, after = jax.tree.map(lambda x: x[None], (row, timestep))
        found = rules.rules(spec, rows.action, rows.timestep.step_type, after, jnp)
        wrong = begun & ~kept(found)
        adder = core.add(agent.adder, state.adder, rows, begun.astype(jnp.int32), timestep)
        ready = agent.adder.ready(adder)
        learn_key, most = clock[3:5], clock[5].astype(jnp.int32)
        reached = ready & counts.at_least(state.learner.updates, most)
        learn = lambda state: core.learn(agent, state, learn_key, updates)
        state = state._replace(adder=adder)
        state = jax.lax.cond(ready & ~reached, learn, lambda state: state, state)
        answer = acting.act(agent, state.learner.params, clock, timestep, actor)
        action, following, extras, clock = answer
        carry = Carry(Row(timestep, action, extras), jnp.bool_(True), actor, following, clock)
        return state, carry, action, jnp.stack([wrong, state.halted | reached])

    return sequential(turn, donate_argnums=(0, 1))


class RowByRow(Learning):
    """`Rollout` and `Learning` in one: a row, what is learned and the next action, one dispatch.

    For adders that may have a batch after every row: there, a dispatch costs more than a small
    network's update. So rows stay where the learner is, are looked at there, too, and the host
    hands over timesteps and gets actions.
    """

    def __init__(self, agent: Agent, envs: HostEnvironments, seed: int, control: Control):
        super().__init__(agent, envs.spec, seed, envs.num_envs, control)
        envs.episode_limit = agent.adder.episode_limit
        self._envs, self._turn = envs, compile_turn(agent, envs.spec, envs.num_envs)
        one = jax.device_get(initial.example_row(agent, envs.spec, self.params))
        self.params = None  # whose memory the next turn takes
        self._seen = jax.tree.structure(one.timestep)
        actor = initial.initial_actor_state(agent.actor, envs.num_envs)
        most = 2**31 - 1 if self._most is None else self._most
        clock = np.array([*acting.clock(seed), *np.asarray(self._key), most], np.uint32)
        if (resume := control.resume) is not None:
            if held := resume.facts["held"]:
                raise SettingError(
                    f"the run stands {held} rows into a block, and by its settings there are no "
                    "blocks now; use the settings it was saved with"
                )
            envs.restore(*resume)
            actor = trees.restore(actor, resume.arrays, "actor")
            clock[2] = resume.facts["rows"]
        row = jax.tree.map(lambda x: np.zeros((envs.num_envs, *x.shape), x.dtype), one)
        self._carry = copied(Carry(row, np.bool_(False), actor, actor, clock))
        # One memory for all of them: until an action is there, all of it has been read.
        read = [True] * self._seen.num_leaves
        self._row = RowBuffer(one, 1, envs.num_envs, read, envs.spec, envs.begun())
        self._actions: Any = None

    def read_params(self, params: Any) -> None:
        """Returns what `advance` wants of them: nothing, they are where they are needed."""

    def advance(self, params: None, until: Callable[[], bool]) -> bool:
        """Plays at least a step; returns False, as no row is left to be learned from."""
        if self._actions is None:
            self._answer()
        while True:
            self._envs.step(self._actions)
            self._answer()
            if self.halted or until():
                return False

    def _answer(self):
        envs, row = self._envs, self._row
        timestep = self._seen.unflatten(row.begin(envs.timesteps))
        self._state, self._carry, action, flags = self._turn(self._state, self._carry, timestep)
        wrong, self.halted = np.asarray(flags).tolist()
        if wrong:
            row.check()
            raise RuntimeError("a rule is broken on the device that NumPy finds kept")
        # Memory of its own: the next turn overwrites that of the device.
        self._actions = jax.tree.map(np.array, action)
        row.follow(self._actions, envs.begun())

    def check(self) -> None:
        """Nothing is left to be checked."""

    def save(self, ended: list[tuple[float, ...]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns arrays and facts as `Rollout.save` does, where a block has just begun."""
        # Without the answer that is out: asked again, the same program gives the same.
        carry, begun = self._carry, self._actions is not None
        own, facts = self._envs.save(ended)
        rows = jax.tree.map(lambda x: np.zeros((0, *x.shape), x.dtype), carry.row)
        actor = carry.before if begun else carry.actor
        facts |= {"rows": int(carry.clock[2]) - begun}
        facts |= {"held": 0, "now": 0, "ends": 0, "look": False}
        facts["begun"] = [[int(n) for n in numbers] for numbers in self._envs.begun()]
        return {"actor": actor, "rows": rows, "environments": own}, facts
