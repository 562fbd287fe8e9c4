"""The doctor on an agent with the bug RLWS_BUG; the last line printed is what failed, in JSON.

RLWS_BUG=ppo_policy_sign python -m tests.mutation.doctor agents_zoo.ppo backbone=gru
"""

# isort: off
from tests.mutation import plugin  # before anything of rlws

# isort: on
import json
import sys

import jax
import numpy as np

from rlws.commands.target import agent_config
from rlws.diagnose import diagnose
from rlws.diagnose.applicable import is_continuous
from rlws.diagnose.doctor import PARTS
from rlws.diagnose.subject import Subject
from rlws.diagnose.tabular import Tabular, make_table
from rlws.diagnose.toy import toy
from rlws.numerics.cache import enable_cache

SEEDS = 4


def failures(target: str, *settings: str) -> list[str]:
    """Returns the names of all checks that failed, in the doctor's order, then notes of parts."""
    enable_cache()
    report = diagnose(agent_config(target, list(settings)), seeds=SEEDS)
    notes = [x for x in report.checks if x.verdict == "note" and x.name.startswith(PARTS)]
    return [check.name for check in (*report.failures, *notes)]


def named(target: str, only: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Returns the names of checks that failed, of some or all, and where each says to look."""
    enable_cache()
    report = diagnose(agent_config(target, []), seeds=SEEDS, only=only)
    return [(check.name, check.component) for check in report.failures]


def outputs(target: str, *settings: str) -> list[np.ndarray]:
    """Returns what a toy agent makes of known experience: rows, batches and some updates of it.

    Two agents for which all of it is the same cannot be told apart by that.
    """
    enable_cache()
    config = toy(agent_config(target, list(settings)))
    subject = Subject(config, Tabular(make_table(), is_continuous(config)).spec())
    state, found = subject.state.learner, list(subject.played)
    for i, batch in enumerate(subject.batches[-8:]):
        state, metrics = subject.learn(state, batch, jax.random.key(i))
        found.append(metrics)
    found += [state.params, state.extra, subject.play(state.params)[0]]
    one = jax.tree.map(lambda x: x[0], subject.batches[-1])
    found.append(subject.agent.learner.value(state.params, one))
    return [np.asarray(x) for x in jax.tree.leaves(found)]


if __name__ == "__main__":
    assert plugin
    print(json.dumps(failures(*sys.argv[1:])))
