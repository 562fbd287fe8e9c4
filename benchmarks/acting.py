"""What the trainers add to the bare minimum: `python -m benchmarks.acting`.

Host: one jitted policy call that samples inside the jit, and `env.step`; nothing else. Device: a
`lax.scan` of the policy and the environment; nothing else. Learning is kept from happening.
"""

import argparse
import dataclasses

import dm_env
import gymnasium
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from agents_zoo import reinforce
from benchmarks.measure import alternate, report, stepping
from rlws.adders import Episodes
from rlws.environments import CartPole
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.trainers.program import Program


class Deaf(Episodes):
    """An adder that keeps what it is given and never has a batch."""

    @property
    def min_ends(self):
        """Never."""
        return np.inf

    def ready(self, state):
        return jnp.bool_(False)


class Config(reinforce.Config):
    """REINFORCE that acts and never learns."""

    def make(self, spec):
        agent = super().make(spec)
        return dataclasses.replace(
            agent, adder=Deaf(self.episodes_per_update, spec.max_episode_steps or 500)
        )


def cartpole(endless):
    """Returns CartPole; `endless`, no pole falls and every episode takes 500 steps."""
    env = gymnasium.make("CartPole-v1", disable_env_checker=True)
    if endless:
        for limit in ("theta_threshold_radians", "x_threshold"):
            setattr(env.unwrapped, limit, np.inf)
    return env


def bare_host(endless, segment):
    """Yields the steps done by the shortest loop that plays CartPole with a network."""
    network = policy()
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 4)))

    @jax.jit
    def act(params, key, observation):
        key, sample_key = jax.random.split(key)
        return jax.random.categorical(sample_key, network.apply(params, observation)), key

    env, key, steps = cartpole(endless), jax.random.PRNGKey(0), 0
    observation, _ = env.reset(seed=0)
    while True:
        yield steps
        for _ in range(segment):
            action, key = act(params, key, observation[None])
            observation, _, terminated, truncated, _ = env.step(int(np.asarray(action)[0]))
            if terminated or truncated:
                observation, _ = env.reset()
        steps += segment


def our_host(endless, segment):
    """Yields the steps done by the HostTrainer."""
    make = lambda seed, index: GymEnvironment(cartpole(endless), seed, index)
    config = Config(max_episode_length=500)
    for progress in HostTrainer().train(config, make, steps=10**9, report_period=segment):
        yield progress.steps


def policy():
    """Returns Haiku's 64x64 tanh policy for CartPole, as one would write it by hand."""

    def forward(x):
        init = hk.initializers.Orthogonal(2**0.5)
        for size in (64, 64):
            x = jnp.tanh(hk.Linear(size, w_init=init)(x))
        return hk.Linear(2)(x)

    return hk.without_apply_rng(hk.transform(forward))


def bare_device(num_envs, length):
    """Returns a segment of the shortest scan that plays CartPole with a network."""
    env, network = CartPole(), policy()
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 4)))

    def step(carry, _):
        key, state, observation = carry
        key, act_key, reset_key = jax.random.split(key, 3)
        action = jax.random.categorical(act_key, network.apply(params, observation))
        state, timestep = jax.vmap(env.step)(state, action)
        fresh = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
        last = timestep.last()
        choose = lambda new, old: jnp.where(last.reshape(-1, *[1] * (old.ndim - 1)), new, old)
        state, observation = jax.tree.map(
            choose, (fresh[0], fresh[1].observation), (state, timestep.observation)
        )
        return (key, state, observation), timestep.reward

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=length))
    state, timestep = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), num_envs))
    carry = (jax.random.key(2), state, timestep.observation)

    def segment():
        nonlocal carry
        carry, rewards = run(carry)
        jax.block_until_ready(rewards)
        return length * num_envs

    return segment


def our_device(num_envs, length):
    """Returns a segment of the DeviceTrainer's acting: rows out, nothing done with them."""
    agent = reinforce.Config().make(CartPole().spec())
    program = Program(agent, CartPole(), num_envs)
    run = jax.jit(program.init)(0)

    def act(run):
        def step(run, _):
            run, row, ended = program.step(run, run.state.learner.params)
            return run, (row, ended)

        return jax.lax.scan(step, run, length=length)

    act = jax.jit(act, donate_argnums=0)

    def segment():
        nonlocal run
        run, (rows, _) = act(run)
        return int((rows.timestep.step_type != dm_env.StepType.LAST).sum())

    return segment


def our_device_whole(num_envs, length):
    """Yields the steps done by the DeviceTrainer: acting, adding and logging, but no update."""
    config = Config()
    trainer = DeviceTrainer(num_envs=num_envs)
    steps = num_envs * length
    for progress in trainer.train(config, CartPole(), steps=10**9, report_period=steps):
        yield progress.steps


def main() -> None:
    """Prints both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1, 64, 1024])
    args = parser.parse_args()
    for endless, episodes in ((True, "500 steps"), (False, "about 22 steps, an untrained policy")):
        contestants = {
            "bare loop": stepping(bare_host(endless, 2000)),
            "HostTrainer": stepping(our_host(endless, 2000)),
        }
        times = alternate(contestants, args.rounds)
        report(f"Host, CartPole-v1, episodes of {episodes}", times, "bare loop")
    for num_envs in args.num_envs:
        length = max(20_000 // num_envs, 500)
        contestants = {
            "bare scan": bare_device(num_envs, length),
            "DeviceTrainer, acting": our_device(num_envs, length),
            "DeviceTrainer, and adding": stepping(our_device_whole(num_envs, length)),
        }
        times = alternate(contestants, args.rounds)
        report(f"Device, CartPole-v1, {num_envs} environments", times, "bare scan")


if __name__ == "__main__":
    main()
