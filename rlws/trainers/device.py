"""Training in one compiled program: environment, acting, adding and learning on the device."""

import time
import warnings
from typing import Any

import dm_env
import jax
import numpy as np

from rlws.environments import resolve, rules
from rlws.environments.checks import check_rules, fault
from rlws.numerics import checkpoint
from rlws.settings import PositiveInt, SettingError
from rlws.trainers.population import Population, Untraceable
from rlws.trainers.program import Budget, Wrong
from rlws.trainers.trainer import Member, Progress, Snapshot, Trainer, limits, never, next_multiple

MAX = 2**31 - 1  # of an int32
# Of each run. What is cut is in a block that the budget cut short: the run stands before it.
COUNTS = ("steps", "episodes", "cut_steps", "cut_episodes")
PACE = 512  # steps of each run, at least, between two looks at `stop`


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

    def train(self, config, environment, *, seed=0, **options):
        runs = self.train_all(config, environment, [Member(seed, {})], **options)
        return (reports[0] for reports in runs)

    def train_all(
        self,
        config,
        environment,
        members,
        *,
        steps=None,
        episodes=None,
        report_period=1000,
        resume=None,
        stop=never,
        max_updates=None,
    ):
        """Trains several runs in one program, as many at once as fit into the free memory.

        A snapshot holds those that are in one program; `train_all` goes on with them and the rest.
        """
        budget = *limits(steps, episodes), report_period, max_updates
        self.check(environment)
        environment = resolve.device(environment)
        population = Population(config, environment, self.num_envs, self.num_devices)
        parts = population.parts(members) if resume is None else [*resume.facts["parts"]]
        while parts:
            part = parts.pop(0)
            try:
                compiled = population.compile([members[i] for i in part])
            except Untraceable as error:
                warnings.warn(f"{error}; each run is compiled by itself", stacklevel=2)
                parts = [[i] for i in part] + parts
                continue
            left = [part, *parts]
            for reports in _runs(compiled, environment, *budget, left, resume, stop):
                yield dict(zip(part, reports, strict=True))
                if reports[0].stopped:
                    return
            resume = None

    def member(self, snapshot, member):
        arrays, facts = snapshot
        part = facts["parts"][0]
        i = part.index(member)
        run = arrays["run"]
        if len(part) > 1:
            run = jax.tree.map(lambda x: x[i], run)
        known = {k: facts[k][i : i + 1] for k in (*COUNTS, "updates")}
        known |= {"parts": [[0]], "next_report": facts["next_report"]}
        return Snapshot({"run": run, "ended": {0: arrays["ended"][i]}}, known)


def _runs(
    compiled,
    environment,
    last_step,
    last_episode,
    report_period,
    max_updates,
    parts,
    resume,
    stop,
):
    """Yields the progress of each of the members that are compiled together."""
    count = len(compiled.agents)
    if resume is None:
        run = compiled.init()
        _check_first(environment, run.timestep, count)
        (steps, episodes), cut = np.zeros((2, 2, count), np.int64)
        next_report, logs = 0.0, [list[np.ndarray]() for _ in range(count)]
    else:
        arrays, facts = resume
        run = compiled.restore(checkpoint.restore(jax.eval_shape(compiled.init), arrays, "run"))
        (steps, episodes), cut = np.array([facts[k] for k in COUNTS]).reshape(2, 2, count)
        back = np.where((steps < last_step) & (episodes < last_episode), cut, 0)
        steps, episodes = (steps, episodes) - back  # of those whose budget was raised
        cut = cut - back
        saved = (arrays[f"ended/{i}"] for i in range(count))
        logs = [[x[: len(x) - n]] for x, n in zip(saved, back[1], strict=True)]
        next_report = facts["next_report"]
    halted = compiled.halted(run)
    pace = PACE  # steps a chunk may take, so that `stop` is asked every second or so

    def snapshot():
        known = {k: x.tolist() for k, x in zip(COUNTS, (steps, episodes, *cut), strict=True)}
        known |= {"parts": parts, "next_report": next_report}
        known |= {"updates": np.ravel(updates).tolist()}
        return Snapshot({"run": before, "ended": dict(enumerate(ended))}, known)

    while True:
        spent = (steps >= last_step) | (episodes >= last_episode)
        going = ~(spent | halted)
        due = not going.any() or steps[going].min() >= next_report
        if due or stop():
            ended = [np.concatenate([np.zeros((0, 2)), *log]) for log in logs]
            before = run
            metrics: list[dict[str, float]] = [{}] * count
            if due:
                run, metrics = compiled.read_totals(run)
            params, updates = compiled.params(run), compiled.updates(run)
            yield [
                Progress(
                    int(steps[i]),
                    int(episodes[i]),
                    int(updates[i]),
                    ended[i][:, 0],
                    ended[i][:, 1],
                    metrics[i],
                    compiled.agents[i],
                    params[i],
                    bool(spent[i]),
                    snapshot,
                    bool(halted[i]),
                    not due,
                )
                for i in range(count)
            ]
            if not (due and going.any()):
                return
            logs = [[] for _ in range(count)]
            next_report = next_multiple(int(steps[going].min()), report_period)
        began = time.perf_counter()
        left = lambda limit, done: np.clip(limit - done, 0, MAX).astype(np.int32)
        budget = Budget(
            left(np.minimum(next_report, steps + pace), steps),
            left(last_step, steps),
            left(last_episode, episodes),
            left(np.full(count, MAX if max_updates is None else max_updates), 0),
        )
        run, log = compiled.advance(run, budget)
        for i in range(count):
            if not log.sound[i]:
                raise _fault(environment, run.timestep, Wrong(*(x[i] for x in log.wrong)))
            rows = log.ended[i][: log.rows[i]].reshape(-1, 2)
            logs[i].append(rows[rows[:, 1] > 0].astype(np.float64))
        steps += log.steps
        episodes += log.episodes
        cut += (log.cut_steps, log.cut_episodes)
        halted = log.halted
        quick = time.perf_counter() - began < 1.0
        pace = min(pace * 4, MAX) if quick else max(pace // 2, PACE)


def _check_first(environment: Any, timestep: dm_env.TimeStep, count: int) -> None:
    """Checks the timesteps with which runs begin, leaves [B, ...]; of several [count, B, ...]."""
    name = type(environment).__name__
    batch = jax.tree.map(lambda x: np.asarray(x)[None] if count == 1 else np.asarray(x), timestep)
    check_rules(
        rules.of_timesteps(batch), lambda t, i: f"{name}, environment {i}, episode 0, step 0"
    )


def _fault(environment: Any, timestep: dm_env.TimeStep, wrong: Wrong) -> SettingError:
    """Returns what to say of what is wrong."""
    rule = rules.nth(environment.spec().actions, timestep, int(wrong.rule))
    name = f"{type(environment).__name__}, environment {wrong.environment}"
    value = np.asarray(wrong.value).astype(rule.x.dtype)
    return fault(rule, value, f"{name}, episode {wrong.episode}, step {wrong.step}")
