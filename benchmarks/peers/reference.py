"""The hand-written PPO of `benchmarks.reference_ppo`."""

import jax
import optax

from benchmarks import reference_ppo
from benchmarks.peers.ours import MINATAR
from benchmarks.peers.serve import Advance, serve
from benchmarks.peers.workloads import PPO, Workload
from rlws import environments


def make(workload: Workload, chunk: int) -> Advance:
    """Returns how to advance the workload, which must be PPO."""
    work = workload.settings
    assert isinstance(work, PPO)
    settings = reference_ppo.Settings(
        work.num_envs,
        work.unroll_length,
        work.epochs,
        work.minibatches,
        hidden=work.hidden,
        channels=work.channels,
        environment=environments.make(MINATAR if work.channels else "jax:CartPole-v1"),
    )
    iterations = chunk // work.first
    init = lambda key: reference_ppo.init(settings, key)
    train = lambda state: reference_ppo.train(settings, state, iterations)[0]
    key = jax.random.key(0)
    if work.seeds > 1:
        init, train, key = jax.vmap(init), jax.vmap(train), jax.random.split(key, work.seeds)
    state, run = jax.jit(init)(key), jax.jit(train, donate_argnums=0)
    steps = 0

    def advance(chunks):
        nonlocal state, steps
        for _ in range(chunks):
            state = jax.block_until_ready(run(state))
        steps += chunks * chunk
        return steps, int(optax.tree_utils.tree_get(state.opt_state, "count").sum())

    return advance


if __name__ == "__main__":
    serve(make)
