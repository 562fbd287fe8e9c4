"""A contestant's side of the protocol.

`python -m benchmarks.peers.NAME WORKLOAD CHUNK` reads numbers of chunks from its input, one a line,
and answers each with one line of JSON when that much work is done. In between it is idle.
"""

import json
import sys
import time
from collections.abc import Callable

from benchmarks.peers.workloads import WORKLOADS, Workload

# Does that many chunks; returns the environment steps and the gradient steps taken since the start.
Advance = Callable[[int], tuple[int, int]]


def serve(make: Callable[[Workload, int], Advance]) -> None:
    """Answers requests until the input ends; `make` gets a workload and the size of a chunk."""
    # Whatever libraries print must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    compiled = _compile_times()
    name, chunk = sys.argv[1:]
    advance = make(WORKLOADS[name], int(chunk))
    steps = updates = 0
    for line in sys.stdin:
        began = time.perf_counter()
        all_steps, all_updates = advance(int(line))
        answer = {
            "steps": all_steps - steps,
            "seconds": time.perf_counter() - began,
            "updates": all_updates - updates,
            "compile_seconds": sum(compiled),  # since the start
        }
        steps, updates = all_steps, all_updates
        print(json.dumps(answer), file=answers, flush=True)


def _compile_times() -> list[float]:
    """Returns a list to which JAX adds the seconds of each compilation by XLA."""
    seconds: list[float] = []
    try:
        import jax.monitoring
    except ImportError:  # not everyone has it
        return seconds

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return seconds
