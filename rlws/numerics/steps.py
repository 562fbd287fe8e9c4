"""A gradient step in part, of some parameters only, or now and then.

States have `params` and `opt_state`, as those of `rlws.learner`, which offers all of this, too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rlws.types import Array, Metrics

MEMBERS = "members"  # the axis trainers vmap runs over that are one program


def part_way(before: Any, after: Any, metrics: Metrics, rate: Array) -> tuple[Any, Metrics]:
    """Returns what `rate` (a scalar in [0, 1]) of a gradient step comes to, and its metrics.

    As if the learning rate had been so much of what it is: the optimiser's state is that after it.
    """
    params = optax.incremental_update(after.params, before.params, rate)
    norm = {"update_norm": metrics["update_norm"] * rate}
    return after._replace(params=params), metrics | norm


def delayed(before: Any, after: Any, turn: Array | bool, names: Sequence[str]) -> Any:
    """Returns `after`, where it is its turn (bool scalar) for some parameters to have learned.

    Else those, and what an `optax.partition` by these `names` keeps of them, are as `before`.
    """
    choose = lambda new, old: jax.tree.map(lambda x, y: jnp.where(turn, x, y), new, old)
    chosen = lambda new, old: {**new, **{name: choose(new[name], old[name]) for name in names}}
    inner = chosen(after.opt_state.inner_states, before.opt_state.inner_states)
    return after._replace(
        params=chosen(after.params, before.params),
        opt_state=after.opt_state._replace(inner_states=inner),
    )


def now_and_then(turn: Array, change: Callable[[Any], Any], state: Any) -> Any:
    """Returns `change(state)` where it is its turn (bool scalar), else `state`.

    As `jax.lax.cond`, but it computes nothing in between also where several runs are one program,
    whose turns it mostly is at once: there, a condition would be a choice between both.
    """
    try:
        anyone = jax.lax.pmax(jnp.int32(turn), MEMBERS) > 0
    except NameError:  # there is no such axis
        return jax.lax.cond(turn, change, lambda state: state, state)

    def chosen(state):
        return jax.tree.map(lambda new, old: jnp.where(turn, new, old), change(state), state)

    return jax.lax.cond(anyone, chosen, lambda state: state, state)
