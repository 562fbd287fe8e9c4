"""rejax: whole runs on the device, in gymnax environments."""

import jax
from rejax import DQN, PPO, SAC

from benchmarks.peers.serve import Advance, serve
from benchmarks.peers.workloads import LEARNING_STARTS, Replay, Workload


def algorithm(workload: Workload, steps: int) -> PPO | DQN | SAC:
    """Returns the algorithm of the workload, to train for so many environment steps at a time."""
    settings = workload.settings
    common = {
        "env": "Pendulum-v1" if workload.algorithm == "sac" else "CartPole-v1",
        "num_envs": settings.num_envs,
        "skip_initial_evaluation": True,
        "total_timesteps": steps,
        "eval_freq": steps,
    }
    if not isinstance(settings, Replay):
        return PPO.create(
            **common,
            num_steps=settings.unroll_length,
            num_epochs=settings.epochs,
            num_minibatches=settings.minibatches,
            agent_kwargs={"hidden_layer_sizes": settings.hidden, "activation": "tanh"},
            max_grad_norm=0.5,  # of each element, whatever the name says
        )
    replay = {
        "buffer_size": settings.capacity,
        "batch_size": settings.batch,
        "fill_buffer": LEARNING_STARTS,
        "num_epochs": settings.updates,
    }
    if workload.algorithm == "dqn":
        # Its networks are always 64x64.
        network = {"agent_kwargs": {"activation": "relu"}, "ddqn": False}
        target = {"polyak": 0.0, "target_update_freq": 500}
        return DQN.create(**common, **replay, **network, **target)
    return SAC.create(**common, **replay, hidden_layer_sizes=settings.hidden, polyak=0.995)


def make(workload: Workload, chunk: int) -> Advance:
    """Returns how to advance the algorithm of the workload."""
    seeds = getattr(workload.settings, "seeds", 1)
    made = algorithm(workload, chunk // seeds).replace(eval_callback=lambda *_: ())
    init, train = made.init_state, lambda state: made.train(train_state=state)[0]
    key = jax.random.key(0)
    if seeds > 1:
        init, train, key = jax.vmap(init), jax.vmap(train), jax.random.split(key, seeds)
    state, run = jax.jit(init)(key), jax.jit(train, donate_argnums=0)

    def advance(chunks):
        nonlocal state
        for _ in range(chunks):
            state = jax.block_until_ready(run(state))
        learner = state.q_ts if workload.algorithm == "dqn" else state.actor_ts
        return int(state.global_step.sum()), int(learner.step.sum())

    return advance


if __name__ == "__main__":
    serve(make)
