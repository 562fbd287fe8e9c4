"""Action masks: an observation that says which of n discrete actions are legal.

It does so by its entry `action_mask`, bool or 0 and 1, [n]. The network's backbone sees the rest.
Of k whole numbers at once it is [k, n], where n is how many the largest may be; of nested actions,
all of them discrete, one for each part, nested alike.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.settings import SettingError
from rlws.types import ACTION_MASK, Array, EnvironmentSpec, Key, Observation

KEY = ACTION_MASK
# Of a logit, or a value. Its exponential is 0, and what losses make of it in padding stays finite:
# so it does not become NaN when multiplied with a weight of 0.
ILLEGAL = -1e9


def split(observation: Observation) -> tuple[Observation, Array | None]:
    """Returns an observation, or a spec of some, without its mask, and the mask; None: it has none.

    Where one entry is left it stands alone, without a dict around it.
    """
    if not (isinstance(observation, Mapping) and KEY in observation):
        return observation, None
    rest = {name: x for name, x in observation.items() if name != KEY}
    return (next(iter(rest.values())) if len(rest) == 1 else rest), observation[KEY]


def legal(mask: Any) -> Any:
    """Returns which actions a mask [..., n] allows, bool; all where it allows none.

    So it is in padding and often at the end of an episode, where no action counts. Of a nest of
    masks, it returns one of these.
    """

    def one(mask):
        allowed = jnp.asarray(mask) > 0
        return allowed | ~allowed.any(axis=-1, keepdims=True)

    return jax.tree.map(one, mask)


def random_action(observation: Observation, num_actions: int, key: Key) -> Array:
    """Returns one of n actions, each as likely, of the legal ones where a mask says so; int32."""
    mask = split(observation)[1]
    if mask is None:
        return jax.random.randint(key, (), 0, num_actions, jnp.int32)
    logits = jnp.where(legal(mask), 0.0, ILLEGAL)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def only_legal(name: str, output: Any, valued: bool, mask: Array, spec: EnvironmentSpec) -> Any:
    """Returns what head `name` gives without illegal actions.

    A distribution leaves them out by its `masked`, of action values (`valued`) theirs are the
    lowest there are, and any other output stays as it is.

    Raises:
      SettingError: it does not fit the actions, or is a policy that cannot leave any out.
    """
    if hasattr(output, "masked"):
        output.check_actions(name, spec.actions)
        return output.masked(legal(mask))
    if name == "policy":
        raise SettingError(
            f"head 'policy' gives {type(output).__name__}, which has no method masked(legal), but "
            f"observations have an {KEY}; add one, as Categorical has it"
        )
    if not valued:
        return output
    if output.shape != mask.shape:
        raise SettingError(
            f"head {name!r} has shape {output.shape}, but {KEY} has {mask.shape}: it must have a "
            "value for each action"
        )
    return jnp.where(legal(mask), output, ILLEGAL)


def check(spec: EnvironmentSpec) -> None:
    """Raises a SettingError where observations have a mask that does not fit the actions."""
    rest, mask = split(spec.observations)
    if mask is None:
        return
    wanted = jax.tree.map(_shape, spec.actions)
    found = jax.tree.map(lambda x: x.shape, mask)
    if found != wanted:
        raise SettingError(
            f"observation['{KEY}'] has shape {found}, but the environment's actions, "
            f"{spec.actions}, need shape {wanted}"
        )
    if not jax.tree.leaves(rest):
        raise SettingError(f"observations must have an entry beside {KEY}, for the network to see")


def _shape(action: Any) -> tuple[int, ...]:
    """Returns the shape of the mask of a part of an action."""
    if isinstance(action, specs.DiscreteArray):
        return (action.num_values,)
    whole = np.issubdtype(action.dtype, np.integer) and isinstance(action, specs.BoundedArray)
    if not whole or len(action.shape) != 1:
        raise SettingError(
            f"observation['{KEY}'] needs discrete actions, got {action}; rename or remove it"
        )
    return *action.shape, int(np.max(action.maximum - action.minimum.astype(np.int64))) + 1
