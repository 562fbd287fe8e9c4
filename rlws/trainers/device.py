"""Training in one compiled program: environment, acting, adding and learning on the device."""

import warnings

import jax
import numpy as np

from rlws.environments import resolve
from rlws.settings import PositiveInt, SettingError
from rlws.trainers.population import Population, Untraceable
from rlws.trainers.program import Budget
from rlws.trainers.trainer import Member, Progress, Trainer, limits, next_multiple

MAX = 2**31 - 1  # of an int32


class DeviceTrainer(Trainer):
    """Runs a JaxEnvironment, vmapped over `num_envs`, in one scanned program.

    The program runs in chunks of one report, or less where its episode log is full.
    """

    num_devices: PositiveInt = 1  # environments, and with them batches, are split among devices
    num_seeds: PositiveInt = 1  # runs at once: this many seeds, from the experiment's on

    def check(self, environment):
        resolve.device(environment)
        if self.num_envs % self.num_devices or self.num_devices > jax.device_count():
            raise SettingError(
                f"num_devices must divide num_envs={self.num_envs} and be at most the "
                f"{jax.device_count()} there are, got {self.num_devices}; on a CPU, XLA_FLAGS="
                "--xla_force_host_platform_device_count=N makes virtual ones"
            )

    def train(self, config, environment, *, seed=0, **budget):
        runs = self.train_all(config, environment, [Member(seed, {})], **budget)
        return (reports[0] for reports in runs)

    def train_all(
        self, config, environment, members, *, steps=None, episodes=None, report_period=1000
    ):
        """Trains several runs in one program, as many at once as fit into the free memory."""
        budget = *limits(steps, episodes), report_period
        self.check(environment)
        environment = resolve.device(environment)
        population = Population(config, environment, self.num_envs, self.num_devices)
        parts = population.parts(members)
        while parts:
            part = parts.pop(0)
            try:
                compiled = population.compile([members[i] for i in part])
            except Untraceable as error:
                warnings.warn(f"{error}; each run is compiled by itself", stacklevel=2)
                parts = [[i] for i in part] + parts
                continue
            for reports in _runs(compiled, environment, *budget):
                yield dict(zip(part, reports, strict=True))


def _runs(compiled, environment, last_step, last_episode, report_period):
    """Yields the progress of each of the members that are compiled together."""
    run, count = compiled.init(), len(compiled.agents)
    steps, episodes = np.zeros(count, np.int64), np.zeros(count, np.int64)
    next_report, logs = 0.0, [list[np.ndarray]() for _ in range(count)]

    while True:
        spent = (steps >= last_step) | (episodes >= last_episode)
        if spent.all() or steps[~spent].min() >= next_report:
            run, metrics = compiled.read_totals(run)
            params, updates = compiled.params(run), compiled.updates(run)
            ended = [np.concatenate([np.zeros((0, 2)), *log]).T for log in logs]
            yield [
                Progress(
                    int(steps[i]),
                    int(episodes[i]),
                    int(updates[i]),
                    ended[i][0],
                    ended[i][1],
                    metrics[i],
                    compiled.agents[i],
                    params[i],
                    bool(spent[i]),
                )
                for i in range(count)
            ]
            if spent.all():
                return
            logs = [[] for _ in range(count)]
            next_report = min(next_multiple(int(steps[~spent].min()), report_period), last_step)
        left = lambda limit, done: np.clip(limit - done, 0, MAX).astype(np.int32)
        budget = Budget(
            left(next_report, steps), left(last_step, steps), left(last_episode, episodes)
        )
        run, log = compiled.advance(run, budget)
        for i in range(count):
            if not log.finite[i]:
                raise SettingError(
                    f"{type(environment).__name__}: observations and rewards must be finite, got "
                    f"NaN or infinity about step {steps[i] + log.steps[i]}; mend the environment"
                )
            rows = log.ended[i][: log.rows[i]].reshape(-1, 2)
            logs[i].append(rows[rows[:, 1] > 0].astype(np.float64))
        steps += log.steps
        episodes += log.episodes
