"""An update after every row: adding, learning and acting in one dispatch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent
from rlws.environments import rules
from rlws.numerics import checkpoint, streams
from rlws.numerics.memo import remembered_of
from rlws.numerics.sequential import sequential
from rlws.numerics.streams import Stream
from rlws.settings import SettingError
from rlws.trainers import acting, core
from rlws.trainers.host_environments import HostEnvironments
from rlws.trainers.learning import copied
from rlws.trainers.row_buffer import RowBuffer
from rlws.trainers.trainer import Snapshot
from rlws.types import Array, EnvironmentSpec, Row


class Carry(NamedTuple):
    """What one turn leaves to the next."""

    state: core.State
    row: Row  # leaves [B, ...]: what was last seen, and the answer to it
    begun: Array  # whether there is one
    before: Any  # the actors' memory when they saw it, leaves [B, ...]
    actor: Any  # and now
    clock: Array  # as `acting.clock`; then the learner's key and how many updates there may be


class Programs(NamedTuple):
    """The compiled functions of a run row by row."""

    init: Any  # seed, clock -> carry
    turn: Any  # carry (donated), timestep -> carry, (actions, [a rule is broken, it halts])


@remembered_of
def compile_turns(agent: Agent, spec: EnvironmentSpec, num_envs: int) -> Programs:
    """Returns the program that adds a row, learns and acts, all in one dispatch."""
    updates = agent.adder.schedule(num_envs).updates

    def init(seed, clock):
        state = core.init(agent, spec, seed, num_envs)
        row = core.example_row(agent, spec, state.learner.params)
        row = jax.tree.map(lambda x: jnp.zeros((num_envs, *x.shape), x.dtype), row)
        before, actor = (core.initial_actor_state(agent.actor, num_envs) for _ in range(2))
        return Carry(state, row, jnp.bool_(False), before, actor, clock)

    def turn(carry: Carry, timestep: dm_env.TimeStep):
        state, row, begun, _, actor, clock = carry
        rows, after = jax.tree.map(lambda x: x[None], (row, timestep))
        found = rules.rules(spec.actions, rows.action, rows.timestep.step_type, after, jnp)
        wrong = begun & jnp.stack([rule.broken.any() for rule in found]).any()
        adder = agent.adder.add(state.adder, rows, begun.astype(jnp.int32), timestep)
        ready = agent.adder.ready(adder)
        learn_key, most = clock[3:5], clock[5].astype(jnp.int32)
        reached = ready & (state.learner.updates >= most)
        learn = lambda state: core.learn(agent, state, learn_key, updates)
        state = state._replace(adder=adder)
        state = jax.lax.cond(ready & ~reached, learn, lambda state: state, state)
        answer = acting.act(agent, state.learner.params, clock, timestep, actor)
        action, following, extras, clock = answer
        row = Row(timestep, action, extras)
        carry = Carry(state, row, jnp.bool_(True), actor, following, clock)
        return carry, (action, jnp.stack([wrong, state.halted | reached]))

    return Programs(jax.jit(init), sequential(turn, donate_argnums=0))


class RowByRow:
    """`Rollout` and `Learning` in one: a row, what is learned and the next action, one dispatch.

    For adders that may have a batch after every row: there, a dispatch costs more than a small
    network's update. So rows stay where the learner is, are looked at there, too, and the host
    hands over timesteps and gets actions.
    """

    params = None  # to act by, as of `Learning`: nobody hands them over

    def __init__(
        self,
        agent: Agent,
        envs: HostEnvironments,
        seed: int,
        resume: Snapshot | None = None,
        max_updates: int | None = None,
    ):
        envs.episode_limit = agent.adder.episode_limit
        self._envs, self.halted = envs, False
        programs = compile_turns(agent, envs.spec, envs.num_envs)
        most = 2**31 - 1 if max_updates is None else max_updates
        learn_key = np.asarray(streams.key(seed, Stream.LEARN))
        clock = np.array([*acting.clock(seed), *learn_key, most], np.uint32)
        like = jax.eval_shape(programs.init, seed, clock)
        if resume is None:
            self._carry = programs.init(seed, clock)
        else:
            self._carry = _restored(like, resume, clock)
        self._turn = programs.turn
        row = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), like.row)
        self._seen = jax.tree.structure(row.timestep)
        if resume is not None:
            if held := resume.facts["held"]:
                raise SettingError(
                    f"the run stands {held} rows into a block, and by its settings there are no "
                    "blocks now; use the settings it was saved with"
                )
            envs.restore(*resume)
        # One memory for all of them: until an action is there, all of it has been read.
        read = [True] * self._seen.num_leaves
        self._row = RowBuffer(row, 1, envs.num_envs, read, envs.spec, envs.begun())
        self._actions: Any = None

    def read_params(self, params: None) -> None:
        """Returns what `advance` wants of them."""

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
        self._carry, (action, flags) = self._turn(self._carry, timestep)
        wrong, self.halted = np.asarray(flags).tolist()
        if wrong:
            row.check()
            raise RuntimeError("a rule is broken on the device that NumPy finds kept")
        # Memory of its own: the next turn overwrites that of the device.
        self._actions = jax.tree.map(np.array, action)
        row.follow(self._actions, envs.begun())

    def check(self) -> None:
        """Nothing is left to be checked."""

    def state(self) -> core.State:
        """Returns the state of the agent."""
        return self._carry.state

    def read(self) -> tuple[core.State, dict[str, float]]:
        """Returns the state and the means of the metrics since the last call."""
        state, metrics = core.read_totals(self._carry.state)
        self._carry = self._carry._replace(state=state)
        return state, metrics

    def save(self, ended: list[tuple[float, int]]) -> tuple[dict[str, Any], dict[str, Any]]:
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

    def learned(self) -> dict[str, Any]:
        """Returns the rest of it, as `Learning.learned` does."""
        return {"state": self._carry.state}

    def close(self) -> None:
        """Ends nothing."""


def _restored(like: Carry, saved: Snapshot, clock: Any) -> Carry:
    arrays, facts = saved
    state = checkpoint.restore(like.state, arrays, "state")
    actor = checkpoint.restore(like.actor, arrays, "actor")
    clock[2] = facts["rows"]
    row, begun = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (like.row, like.begun))
    # Memory of its own: what is donated must not be that of the arrays that were read.
    return copied(Carry(state, row, begun, actor, actor, clock))
