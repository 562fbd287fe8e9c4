"""How many workers feed a learner, and where it saturates: a calculation, no measurement.

    python -m benchmarks.scaling --step-ms 5 --update-ms 2 --observation-bytes 16

Its constants are measured by `python -m benchmarks.distributed`; give your own machine's.
"""

import argparse
import dataclasses


@dataclasses.dataclass(frozen=True)
class Load:
    """What is known of a run; times in seconds."""

    step: float  # that an environment takes for a step
    act: float  # that a worker takes to act in all its environments
    update: float  # of the learner, a batch
    num_envs: int = 1  # of a worker, stepped one after the other
    length: int = 20  # rows of a block
    batch_blocks: int = 1  # blocks of a batch
    row_bytes: int = 40  # of one environment
    params_bytes: int = 40_000  # that actors read
    call: float = 0.8e-3  # a call to a worker and its answer
    put: float = 1e-3  # of parameters into the object store, however small
    bandwidth: float = 1.5e9  # bytes a second in and out of the object store, or of the network

    def block_bytes(self) -> int:
        """Returns the size of a block."""
        return self.row_bytes * self.num_envs * self.length

    def play(self) -> float:
        """Returns the seconds in which a worker plays a block."""
        fetch = self.params_bytes / self.bandwidth
        return self.length * (self.act + self.num_envs * self.step) + fetch

    def learn(self) -> float:
        """Returns the seconds in which the learner takes a block and answers with parameters."""
        moved = (self.block_bytes() + self.params_bytes / self.batch_blocks) / self.bandwidth
        return self.call + moved + (self.update + self.put) / self.batch_blocks

    def steps_per_second(self, workers: int, ahead: bool = True) -> float:
        """Returns environment steps a second; `ahead`: workers play while the learner learns."""
        play, learn = self.play(), self.learn()
        if ahead:
            blocks = min(workers / (play + self.call), 1 / learn)
        else:  # all wait for the learner, and it for them
            blocks = workers / (play + self.call + workers * learn)
        return blocks * self.num_envs * self.length

    def saturation(self) -> float:
        """Returns the number of workers beyond which the learner is never idle."""
        return (self.play() + self.call) / self.learn()


def main() -> None:
    """Prints what the command line's load comes to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step-ms", type=float, default=5.0)
    parser.add_argument("--act-ms", type=float, default=0.05)
    parser.add_argument("--update-ms", type=float, default=2.0)
    parser.add_argument("--num-envs", type=int, default=1)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--batch-blocks", type=int, default=1)
    parser.add_argument("--observation-bytes", type=int, default=16)
    parser.add_argument("--params-bytes", type=int, default=40_000)
    parser.add_argument("--gigabytes-per-second", type=float, default=1.5)
    args = parser.parse_args()
    load = Load(
        step=args.step_ms / 1000,
        act=args.act_ms / 1000,
        update=args.update_ms / 1000,
        num_envs=args.num_envs,
        length=args.length,
        batch_blocks=args.batch_blocks,
        # And step type, reward, discount, action, log-probability and value.
        row_bytes=args.observation_bytes + 24,
        params_bytes=args.params_bytes,
        bandwidth=args.gigabytes_per_second * 1e9,
    )
    most = load.saturation()
    print(f"a worker plays a block of {load.length * load.num_envs} steps in {load.play():.4f} s,")
    print(f"the learner takes {1000 * load.learn():.2f} ms for it: {most:,.0f} workers feed it,")
    print(f"at {load.block_bytes() / load.num_envs / load.length:,.0f} bytes a step")
    print(f"{'workers':>8}{'steps/s':>12}{'in lock step':>14}{'MB/s':>8}")
    workers = 1
    while workers < 4 * most:
        rate = load.steps_per_second(workers)
        moved = rate * load.row_bytes / 1e6
        waiting = load.steps_per_second(workers, ahead=False)
        print(f"{workers:>8}{rate:>12,.0f}{waiting:>14,.0f}{moved:>8.1f}")
        workers *= 2


if __name__ == "__main__":
    main()
