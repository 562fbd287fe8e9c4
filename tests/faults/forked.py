"""A process that has imported what runs need, and computed nothing: it forks into runs.

A run begun so is spared the second or two of importing. As JAX has not been used, there is no
thread that a fork would lose; each run is a process like any other, in a session of its own, and
differs from `python -m rlws` in that it draws no plots, which take longer than the run.
"""

import contextlib
import importlib
import json
import os
import pathlib
import runpy
import socket
import sys

IMPORTED = (
    *(f"rlws.commands.{x}" for x in ("cli", "run", "resume", "inspect", "fork", "evaluate")),
    *(f"agents_zoo.{agent}" for agent in ("dqn", "impala", "ppo", "reinforce", "sac")),
    *("gymnasium.vector", "gymnasium.envs.classic_control", "rlws.tracking.plots"),
)


def serve(requests):
    """Forks at each request; returns what was asked for in the process that is to do it."""
    while True:
        message, handles, _, _ = socket.recv_fds(requests, 2**16, 3)
        if not message:  # nobody is there to ask
            sys.exit()
        out, err, report = handles
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose threads"
        if os.fork():
            for handle in (out, err, report):
                os.close(handle)
            continue
        requests.close()
        run = os.fork()
        if run == 0:
            os.close(report)
            os.setsid()
            for mine, standard in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
                os.dup2(mine, standard)
                os.close(mine)
            return json.loads(message)
        os.close(out)
        os.close(err)
        os.write(report, f"{run}\n".encode())
        _, status = os.waitpid(run, 0)
        os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)


if __name__ == "__main__":
    sys.path[0] = str(pathlib.Path(__file__).parents[2])
    for name in IMPORTED:
        importlib.import_module(name)

    import jax

    from rlws.tracking import plots

    plots.plot_run = lambda *_: []
    words, variables, folder = serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.update(variables)
    os.chdir(folder)
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    sys.argv = ["rlws", *words]
    runpy.run_module("rlws", run_name="__main__", alter_sys=True)
