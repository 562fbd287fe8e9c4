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
    return _summed(error_t, discount_t * lambda_t)


def _summed(error_t: Array, decay_t: Array) -> Array:
    """Returns each error plus those after it, decayed by each step between, [T]."""

    def back(later, step):
        error, decay = step
        later = error + decay * later
        return later, later

    return jax.lax.scan(back, jnp.zeros_like(error_t[0]), (error_t, decay_t), reverse=True)[1]


def traced_returns(
    r_t: Array, discount_t: Array, c_t: Array, v_t: Array, q_t: Array | None = None
) -> Array:
    """Returns G_{t-1} = r_t + gamma (v_t + c_t (G_t - q_t)), [T]; the last of them has c_t = 0.

    What `c_t` is makes them, where lambda_t is `Trajectory.trace` and a_t the action taken there,

        lambda_t, and q_t = v_t = max_a Q: Peng's Q(lambda); where a_t is not the best, 0: Watkins's
        lambda_t pi(a_t): tree backup (Precup et al., 2000), and v_t the mean of Q by pi
        lambda_t min(1, pi(a_t) / mu(a_t)): Retrace (Munos et al., 2016), likewise.

    Args:
      r_t: rewards of steps 1 to T, [T].
      discount_t: discounts of those steps, gamma included, [T].
      c_t: how far to trust the return from observation t on, 0 where an episode ended there, [T].
      v_t: values of observations 1 to T, [T].
      q_t: values of the actions taken there, [T], the last of which counts for nothing; None: v_t.
    """
    q_t = v_t if q_t is None else q_t
    before = jnp.append(0.0, q_t[:-1])
    return before + _summed(r_t + discount_t * v_t - before, discount_t * c_t)


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
