"""The doctor on an agent with the bug RLWS_BUG; the last line printed is what failed, in JSON.

RLWS_BUG=ppo_policy_sign python -m tests.mutation.doctor agents_zoo.ppo backbone=gru
"""

# isort: off
from tests.mutation import plugin  # before anything of rlws

# isort: on
import json
import sys

from rlws.commands.target import agent_config
from rlws.diagnose import diagnose
from rlws.numerics.cache import enable_cache

SEEDS = 4


def failures(target: str, *settings: str) -> list[str]:
    """Returns the names of all checks that failed, in the doctor's order."""
    enable_cache()
    report = diagnose(agent_config(target, list(settings)), seeds=SEEDS)
    return [check.name for check in report.failures]


if __name__ == "__main__":
    assert plugin
    print(json.dumps(failures(*sys.argv[1:])))
