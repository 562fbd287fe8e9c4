"""Agents that see their last observations side by side, each of which is kept once.

    Stacked(dqn.Config(backbone=networks.nature()), 4)

What is kept between acting and learning (rows, blocks, replay) is one observation a step; they are
laid side by side where an action is chosen and where a batch is made. The wrapper "+stack=4" of an
environment gives the same numbers, and keeps each observation four times.
"""

import dataclasses
from typing import Annotated, Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws.actor import Actor
from rlws.adders import Adder
from rlws.adders.ring import write
from rlws.agent import Agent, AgentConfig
from rlws.environments.wrappers import Stack, side_by_side
from rlws.settings import PositiveInt, Range, SettingError
from rlws.types import Array, EnvironmentSpec, Observation


class Stacked(AgentConfig):
    """An agent that sees its last `count` observations along their last axis, the newest last.

    Before an episode's beginning there is its first observation again. Any agent will do whose
    adder keeps rows for a known time (`Adder.kept`).
    """

    agent: AgentConfig
    count: Annotated[int, Range(2, 64)] = 4

    def make(self, spec: EnvironmentSpec) -> Agent:
        """Returns the agent, made for stacked observations.

        Raises:
          SettingError: as the agent's own, or observations cannot be stacked.
        """
        agent = self.agent.make(Stack(self.count).spec(spec))
        if agent.adder.kept(1) is None:
            raise SettingError(
                f"Stacked: the adder must keep rows for a known time, got {type(agent.adder)!r}, "
                "which waits for episodes to end; use the wrapper of the environment, +stack="
                f"{self.count}"
            )
        return dataclasses.replace(
            agent,
            actor=StackedActor(agent.actor, spec, self.count),
            evaluator=StackedActor(agent.evaluator, spec, self.count),
            adder=StackedAdder(agent.adder, self.count),
        )


class StackedActor(Actor):
    """Carries the observations before this one."""

    actor: Actor
    spec: EnvironmentSpec
    count: PositiveInt

    def initial_state(self):
        return (self.count - 1) * (self.spec.zero_observation(),), self.actor.initial_state()

    def select_action(self, params, timestep, state, key):
        before, inner = state
        now = timestep.observation
        choose = lambda x, y: jnp.where(timestep.first(), x, y)
        seen = (*(jax.tree.map(choose, now, one) for one in before), now)
        shown = timestep._replace(observation=side_by_side(seen, jnp))
        action, inner, extras = self.actor.select_action(params, shown, inner, key)
        return action, (seen[1:], inner), extras


class StackedState(NamedTuple):
    """A ring of observations; what the adder keeps for one is its place in it."""

    inner: Any  # the adder's
    seen: Observation  # leaves [R, B, ...]
    age: Array  # uint8 [R, B], observations before it in its episode, as far as is looked back
    slot: Array  # int32 [], where the next block goes


class StackedAdder(Adder):
    """Gives an adder places for observations, and its batches the observations, side by side."""

    adder: Adder
    count: PositiveInt

    def init(self, row, num_envs):
        block = self.schedule(num_envs).block_length or 1
        # As far back as the adder keeps rows and looks back, and what a block overwrites.
        rows = (self.kept(num_envs) or 0) + self.count + 1
        rows = block * (-(-rows // block) + 1)  # a block never wraps around
        zeros = lambda x: jnp.zeros((rows, num_envs, *x.shape), x.dtype)
        return StackedState(
            inner=self.adder.init(_placed(row, jnp.int32(0)), num_envs),
            seen=jax.tree.map(zeros, row.timestep.observation),
            age=jnp.zeros((rows, num_envs), jnp.uint8),
            slot=jnp.int32(0),
        )

    def add(self, state, rows, length, timestep):
        num_rows, num_envs = state.age.shape
        block = len(rows.timestep.step_type)
        adding = jnp.asarray(length) > 0
        append = lambda x, y: jnp.concatenate([x, y[None]])
        kind = append(rows.timestep.step_type, timestep.step_type)
        age = self._ages(state, kind == dm_env.StepType.FIRST)
        slots = (state.slot + jnp.arange(block + 1)) % num_rows
        place = slots[:, None] * num_envs + jnp.arange(num_envs)[None]
        head, following = slots[0], slots[block]

        def put(ring, x, last):
            return write(write(ring, x, head, adding), last[None], following, adding)

        inner = self.adder.add(
            state.inner,
            _placed(rows, place[:-1]),
            length,
            timestep._replace(observation=place[-1]),
        )
        seen = jax.tree.map(put, state.seen, rows.timestep.observation, timestep.observation)
        slot = jnp.where(adding, following, head)
        return StackedState(inner, seen, put(state.age, age[:-1], age[-1]), slot)

    def _ages(self, state, first):
        """Returns how many observations of its episode were before each, [T + 1, B]."""
        t = jnp.arange(len(first))[:, None]
        begun = jax.lax.cummax(jnp.where(first, t, -1))
        before = state.age[(state.slot - 1) % len(state.age)].astype(jnp.int32)
        age = jnp.where(begun >= 0, t - begun, before[None] + 1 + t)
        return jnp.minimum(age, self.count - 1).astype(jnp.uint8)

    def sample(self, state, key):
        inner, batch = self.adder.sample(state.inner, key)
        num_rows, num_envs = state.age.shape
        slot, env = jnp.divmod(batch.observation, num_envs)
        age = state.age[slot, env].astype(jnp.int32)

        def back(steps):
            places = (slot - jnp.minimum(steps, age)) % num_rows, env
            return jax.tree.map(lambda x: x[places], state.seen)

        seen = side_by_side([back(steps) for steps in reversed(range(self.count))], jnp)
        return state._replace(inner=inner), batch._replace(observation=seen)

    def ready(self, state):
        return self.adder.ready(state.inner)

    def feedback(self, state, priority):
        return state._replace(inner=self.adder.feedback(state.inner, priority))

    def metrics(self, state):
        return self.adder.metrics(state.inner)

    def schedule(self, num_envs):
        return self.adder.schedule(num_envs)

    def kept(self, num_envs):
        return self.adder.kept(num_envs)


def _placed(row, place):
    return row._replace(timestep=row.timestep._replace(observation=place))
