"""An update after every row: adding, learning and acting in one dispatch."""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent
from rlws.environments import rules
from rlws.numerics import checkpoint, streams
from rlws.numerics.sequential import sequential
from rlws.numerics.streams import Stream
from rlws.settings import SettingError
from rlws.trainers import core
from rlws.trainers.block import Block
from rlws.trainers.players import Players
from rlws.trainers.trainer import Snapshot
from rlws.trainers.turns import Turns
from rlws.types import Array, Row


class Carry(NamedTuple):
    """What one turn leaves to the next."""

    state: core.State
    row: Row  # leaves [B, ...]: what was last seen, and the answer to it
    begun: Array  # whether there is one
    before: Any  # the actors' memory when they saw it, leaves [B, ...]
    actor: Any  # and now
    step: Array  # rows answered so far


class RowByRow(Turns):
    """Adds a row, learns and acts again, all in one dispatch: where every row may bring a batch.

    A dispatch costs more than a small network's update. So rows stay where the learner is, are
    looked at there, too, and the host hands over timesteps and gets actions.
    """

    def __init__(
        self,
        agent: Agent,
        play: Players,
        seed: int,
        resume: Snapshot | None,
        max_updates: int | None,
    ):
        play.episode_limit = agent.adder.episode_limit
        self._play, self._halted = play, False
        count, spec = play.num_envs, play.spec
        act_key, learn_key = (streams.key(seed, x) for x in (Stream.ACT, Stream.LEARN))
        _, updates = agent.adder.schedule(count)
        most = 2**31 - 1 if max_updates is None else max_updates

        def initial():
            state = core.init(agent, spec, seed, count)
            row = core.example_row(agent, spec, state.learner.params)
            row = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), row)
            before, actor = (core.initial_actor_state(agent.actor, count) for _ in range(2))
            return Carry(state, row, jnp.bool_(False), before, actor, jnp.uint32(0))

        def turn(carry: Carry, timestep: dm_env.TimeStep):
            state, row, begun, _, actor, step = carry
            rows, after = jax.tree.map(lambda x: x[None], (row, timestep))
            found = rules.rules(spec.actions, rows.action, rows.timestep.step_type, after, jnp)
            wrong = begun & jnp.stack([rule.broken.any() for rule in found]).any()
            adder = agent.adder.add(state.adder, rows, begun.astype(jnp.int32), timestep)
            ready = agent.adder.ready(adder)
            reached = ready & (state.learner.updates >= most)
            learn = lambda state: core.learn(agent, state, learn_key, updates)
            state = state._replace(adder=adder)
            state = jax.lax.cond(ready & ~reached, learn, lambda state: state, state)
            params = state.learner.params
            action, following, extras = core.act(
                agent.actor, params, act_key, step, timestep, actor
            )
            row = Row(timestep, action, extras)
            carry = Carry(state, row, jnp.bool_(True), actor, following, step + 1)
            return carry, (action, jnp.stack([wrong, state.halted | reached]))

        self._turn, first = sequential(turn, donate_argnums=0), jax.jit(initial)
        self._carry = first() if resume is None else _restored(jax.eval_shape(first), resume)
        row = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), self._carry.row)
        self._seen = jax.tree.structure(row.timestep)
        if resume is not None:
            if held := resume.facts["held"]:
                raise SettingError(
                    f"the run stands {held} rows into a block, and by its settings there are no "
                    "blocks now; use the settings it was saved with"
                )
            play.restore(*resume)
        # One memory for all of them: until an action is there, all of it has been read.
        read = [True] * self._seen.num_leaves
        self._block = Block(row, 1, count, read, spec, play.begun())
        self._actions: Any = None

    @property
    def halted(self):
        return self._halted

    def advance(self, due):
        if self._actions is None:
            self._answer()
        while True:
            self._play.step(self._actions)
            self._answer()
            if self.halted or due():
                return True

    def _answer(self):
        play, block = self._play, self._block
        timestep = self._seen.unflatten(block.begin(play.timesteps))
        self._carry, (action, flags) = self._turn(self._carry, timestep)
        wrong, self._halted = np.asarray(flags).tolist()
        if wrong:
            block.check()
            raise RuntimeError("a rule is broken on the device that NumPy finds kept")
        # Memory of its own: the next turn overwrites that of the device.
        self._actions = jax.tree.map(np.array, action)
        block.follow(self._actions, play.begun())

    def state(self):
        return self._carry.state

    def read(self):
        state, metrics = core.read_totals(self._carry.state)
        self._carry = self._carry._replace(state=state)
        return state, metrics

    def save(self, ended):
        # Without the answer that is out: asked again, the same program gives the same.
        carry, begun = self._carry, self._actions is not None
        own, facts = self._play.save(ended)
        rows = jax.tree.map(lambda x: np.zeros((0, *x.shape), x.dtype), carry.row)
        arrays = {"state": carry.state, "actor": carry.before if begun else carry.actor}
        facts |= {"rows": int(carry.step) - begun, "held": 0, "now": 0, "ends": 0, "look": False}
        facts["begun"] = [[int(n) for n in numbers] for numbers in self._play.begun()]
        return {**arrays, "rows": rows, "environments": own}, facts


def _restored(like: Carry, saved: Snapshot) -> Carry:
    arrays, facts = saved
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
    state = copy(checkpoint.restore(like.state, arrays, "state"))
    actor = checkpoint.restore(like.actor, arrays, "actor")
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    # Memory of their own: what is donated must not be that of the arrays that were read.
    return zeros._replace(
        state=state, before=copy(actor), actor=copy(actor), step=jnp.uint32(facts["rows"])
    )
