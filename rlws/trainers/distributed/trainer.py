"""Training with actors in processes of their own, here or on other machines, by Ray."""

import contextlib
from typing import Literal

import jax

from rlws.environments import resolve
from rlws.environments.repeats import numbered
from rlws.settings import NonNegative, NonNegativeInt, Positive, PositiveInt, SettingError
from rlws.trainers.deadline import TIMEOUT
from rlws.trainers.distributed import cluster
from rlws.trainers.distributed.evaluating import RemoteEvaluation
from rlws.trainers.distributed.run import Run
from rlws.trainers.trainer import Control, Trainer, limits


class DistributedTrainer(Trainer):
    """Steps environments in Ray actors, `num_envs` in each; learns from their blocks here.

    With `wait_for="all"` the blocks of all actors lie side by side, as if one HostTrainer had all
    environments, and the run is a function of its settings and seed. With "any" blocks are learned
    from as they come, whoever played them, which suits agents that correct for it (IMPALA).
    """

    evaluates_apart = True

    num_actors: PositiveInt = 2  # processes that act
    # As of the HostTrainer; or "device": environments written in JAX, in one compiled scan a block.
    vectorization: Literal["serial", "sync", "async", "native", "envpool", "device"] = "serial"
    wait_for: Literal["all", "any"] = "all"  # actors, before what they played is learned from
    # Blocks an actor plays before it waits for what was learned from the first of them. So with
    # "all" it acts by parameters that are exactly so many updates old.
    lookahead: NonNegativeInt = 0
    batch_blocks: PositiveInt = 1  # with "any": how many blocks make a batch
    # With "any": updates that acting parameters may be behind, at most. By default twice what it
    # comes to where all actors are equally fast.
    max_lag: PositiveInt | None = None
    num_devices: PositiveInt = 1  # the learner's; batches are split among them
    address: str | None = None  # of a running Ray cluster, or "auto"; none: this machine
    cpus_per_actor: NonNegative = 1.0  # of the cluster's, that Ray keeps for each actor
    dashboard: bool = False  # Ray's, where it is begun here
    environment_timeout: Positive = TIMEOUT  # seconds an environment may take for a step

    @property
    def columns(self):
        return self.num_envs * (self.num_actors if self.wait_for == "all" else self.batch_blocks)

    @property
    def lag_limit(self) -> int:
        """Updates that acting parameters may be behind, at most."""
        if self.wait_for == "all":
            return self.lookahead
        return self.max_lag or 2 * self._usual_lag

    @property
    def _usual_lag(self) -> int:
        return -(-self.num_actors * (1 + self.lookahead) // self.batch_blocks)

    def check(self, environment):
        cluster.imported()
        cluster.check_address(self.address)
        if self.vectorization == "device":
            resolve.device(environment)
        if self.columns % self.num_devices or self.num_devices > jax.device_count():
            raise SettingError(
                f"num_devices must divide the {self.columns} environments of a batch and be at "
                f"most the {jax.device_count()} there are, got {self.num_devices}"
            )
        if self.wait_for == "all":
            return
        if self.batch_blocks > self.num_actors * (1 + self.lookahead):
            raise SettingError(
                f"batch_blocks must be at most num_actors * (1 + lookahead) = "
                f"{self.num_actors * (1 + self.lookahead)}, got {self.batch_blocks}"
            )
        if self.lag_limit < self._usual_lag:
            raise SettingError(
                f"max_lag must be at least num_actors * (1 + lookahead) / batch_blocks = "
                f"{self._usual_lag}, got {self.max_lag}; raise it or batch_blocks, or use "
                "wait_for='all'"
            )

    def check_agent(self, agent):
        super().check_agent(agent)
        if self.wait_for == "any" and not agent.adder.independent:
            raise SettingError(
                f"wait_for must be 'all' for {type(agent.adder).__name__}, which joins the blocks "
                "of an environment, got 'any'; only with Unrolls each block stands by itself"
            )

    def exact(self, environment):
        device = self.vectorization == "device"
        serial = self.vectorization == "serial" and numbered(environment)
        return self.wait_for == "all" and (device or serial)

    def evaluator(self, config, agent, environment, episodes, num_envs):
        return RemoteEvaluation(config, environment, episodes, self.environment_timeout, num_envs)

    def train(self, config, environment, *, seed=0, **control):
        how = Control(**control)
        limits(how.steps, how.episodes)
        self.check(environment)
        cluster.check_sent(environment, config)
        with contextlib.ExitStack() as stack:
            actors = self.num_actors + 1  # and one that evaluates
            ray = stack.enter_context(cluster.connected(self.address, actors, self.dashboard))
            yield from Run(self, ray, stack, config, environment, seed, how).reports()
