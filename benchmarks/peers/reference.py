"""What is written by hand: `benchmarks.reference_ppo` on the device, `reference_dqn` on a host."""

import jax
import optax

from benchmarks import reference_dqn, reference_ppo
from benchmarks.peers.ours import MINATAR
from benchmarks.peers.serve import Advance, serve
from benchmarks.peers.workloads import LEARNING_STARTS, PPO, Replay, Workload
from rlws import environments


def make(workload: Workload, chunk: int) -> Advance:
    """Returns how to advance the workload, which must be PPO, or DQN with one environment."""
    work = workload.settings
    if not isinstance(work, PPO):
        return _dqn(work, chunk)
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


def _dqn(work: Replay, chunk: int) -> Advance:
    how = work.hidden, work.batch, work.capacity, LEARNING_STARTS, work.period, work.updates
    agent = reference_dqn.DQN(reference_dqn.Settings(*how))

    def advance(chunks):
        agent.run(chunks * chunk)
        return agent.steps, agent.updates

    return advance


if __name__ == "__main__":
    serve(make)
