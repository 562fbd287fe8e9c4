"""All that the doctor asks, of all agents that are right: the zoo's and others.

    python -m tests.diagnose.healthy                     # all: some twenty minutes
    python -m tests.diagnose.healthy sac "expected SARSA"

The status is 1 if it calls one ill. Tests ask for parts of it: all of it takes half a minute an
agent, most of it to compile.
"""

import importlib
import pkgutil
import sys
import time

import agents_zoo
from rlws.diagnose import diagnose
from tests.diagnose.more_right_agents import MORE
from tests.diagnose.right_agents import RIGHT

ALL = {**RIGHT, **MORE}  # that are not of the zoo
PARTS = "actor", "adder", "learner"  # the checks that set no problem


def agents():
    """Returns the configurations of agents that are right, by name."""
    modules = [module.name for module in pkgutil.iter_modules(agents_zoo.__path__)]
    zoo = {name: importlib.import_module(f"agents_zoo.{name}").Config() for name in modules}
    return {**zoo, **ALL}


def main(names):
    known = agents()
    if strange := [name for name in names if name not in known]:
        sys.exit(f"there is no agent {strange[0]!r}; one of: {', '.join(known)}")
    ill = 0
    for name in names or known:
        start = time.process_time()
        report = diagnose(known[name], seeds=3)
        failures = "; ".join(f"{check.name}: {check.got}" for check in report.failures)
        ill += bool(failures)
        print(
            f"{name:32s} {time.process_time() - start:5.0f} s  {failures or 'healthy'}", flush=True
        )
    return int(ill > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
