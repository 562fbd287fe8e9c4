"""How things are timed here: in alternation, so that a noisy machine disturbs all alike."""

import statistics
import time
from collections.abc import Callable, Iterator

Segment = Callable[[], int]  # does some work; returns how many environment steps it was


def alternate(contestants: dict[str, Segment], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds per step of each contestant in each round; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, segment in contestants.items():
            began = time.perf_counter()
            steps = segment()
            if round_:
                times[name].append((time.perf_counter() - began) / steps)
    return times


def report(title: str, times: dict[str, list[float]], reference: str) -> None:
    """Prints the median time a step of each contestant, and the median of its ratios."""
    print(title)
    for name, seconds in times.items():
        ratios = [s / r for s, r in zip(seconds, times[reference], strict=True)]
        median = statistics.median(seconds)
        low, *_, high = statistics.quantiles(ratios, n=10)
        print(
            f"  {name:<28}{median * 1e6:9.3f} us/step {1 / median:12,.0f} steps/s   "
            f"time ratio {statistics.median(ratios):5.2f} [{low:.2f}, {high:.2f}]",
            flush=True,
        )


def stepping(steps: Iterator[int]) -> Segment:
    """Returns the segment that takes the next item: a number of steps done so far."""
    done = next(steps)

    def segment():
        nonlocal done
        before, done = done, next(steps)
        return done - before

    return segment
