"""Returns and advantages along one trajectory, [T].

rlax has these and many more; `import rlax` takes as long as everything else a run imports, so what
the zoo needs daily is here, and tested against it.
"""

import jax
import jax.numpy as jnp

from rlws.types import Array


def generalised_advantages(
    r_t: Array, discount_t: Array, lambda_t: Array | float, values: Array
) -> Array:
    """Returns generalised advantage estimates, [T].

    Schulman et al., 2016, "High-dimensional continuous control using generalized advantage
    estimation", equation 16.

    Args:
      r_t: rewards of steps 1 to T, [T].
      discount_t: discounts of those steps, gamma included, [T].
      lambda_t: 0 where a step ends an episode, [T], see `Trajectory.trace`; or one for all.
      values: of observations 0 to T, [T + 1].
    """
    error_t = r_t + discount_t * values[1:] - values[:-1]

    def back(advantage, step):
        error, decay = step
        advantage = error + decay * advantage
        return advantage, advantage

    decay_t = discount_t * lambda_t
    return jax.lax.scan(back, jnp.zeros_like(error_t[0]), (error_t, decay_t), reverse=True)[1]


def n_step_returns(
    r_t: Array, discount_t: Array, v_t: Array, n: int, lambda_t: Array | float = 1.0
) -> Array:
    """Returns r_1 + ... + gamma^(n-1) r_n + gamma^n v_n from each step on, [T].

    Towards the end of the trajectory n shrinks to what is left. Where `lambda_t` is 0, as at the
    end of an episode, the return bootstraps from `v_t` and goes no further.

    Args:
      r_t: rewards of steps 1 to T, [T].
      discount_t: discounts of those steps, gamma included, [T].
      v_t: values of observations 1 to T, [T].
      n: at least 1.
      lambda_t: [T], or one for all.
    """
    lambda_t = jnp.broadcast_to(lambda_t, r_t.shape)
    later = lambda x, last: jnp.append(x[1:], last)
    # The return of k + 1 steps from that of k: it bootstraps one step later.
    returns = r_t + discount_t * v_t
    for _ in range(n - 1):
        onward = later(returns, v_t[-1])
        returns = r_t + discount_t * ((1.0 - lambda_t) * v_t + lambda_t * onward)
    return returns
