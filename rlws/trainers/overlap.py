"""Learning in another thread, while the next block is played."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from rlws.numerics import trees
from rlws.trainers.learning import Learning, copied


class Overlapping(Learning):
    """`take` returns at once, and the block before is what `params` have learned from.

    Arguments are those of `Learning`, on one device.
    """

    def __init__(self, agent, spec, seed, num_envs, control):
        super().__init__(agent, spec, seed, num_envs, control)
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future | None = None
        self._learned = False  # since `params` were last set
        self.params = self._acting_params()
        if control.resume is not None:
            self.params = trees.restore(self.params, control.resume.arrays, "acting")
            self._learned = bool(control.resume.arrays["learned"])

    def take(self, rows, length, timestep):
        block = self._split(rows, 1), length, self._split(timestep, 0)
        self._finish()
        learned, self._learned = self._learned, False
        self.params = self._acting_params()
        self._pending = self._thread.submit(self._take, self._state, *block)
        return learned

    def state(self):
        self._finish()
        return self._state

    def learned(self):
        found = super().learned()  # which waits for what is being learned
        return found | {"acting": self.params, "learned": np.bool_(self._learned)}

    def _finish(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._state, self._learned = pending.result()
            self.halted = bool(self._state.halted)

    def _acting_params(self) -> Any:
        # Learning overwrites its own while others act by them.
        return copied(self._state.learner.params)

    def close(self):
        self._thread.shutdown()
