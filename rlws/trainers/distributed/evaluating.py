"""Evaluation in a process of its own, while training goes on."""

from typing import Any

import jax

from rlws.trainers.distributed import cluster

TRIES = 3  # processes that may die of one evaluation


class RemoteEvaluation:
    """As the function of `evaluation.evaluator`, but for what it returns: a way to the result."""

    def __init__(self, config: Any, environment: Any, episodes: int, timeout: float, num_envs: int):
        self._arguments = config, environment, episodes, timeout, num_envs
        self._handle: Any = None
        self._job: Any = None  # of Ray, which ends with a run

    def __call__(self, params: Any, seed: int) -> Any:
        """Begins an evaluation; returns the function that waits for returns and lengths."""
        ray = cluster.imported()
        params = jax.device_get(params)
        asked = self._ask(ray, params, seed)

        def result(asked=asked):
            for _ in range(TRIES - 1):
                try:
                    return ray.get(asked)
                except ray.exceptions.RayTaskError:
                    raise
                except ray.exceptions.RayError:
                    self._handle = None
                    asked = self._ask(ray, params, seed)
            return ray.get(asked)

        return result

    def _ask(self, ray: Any, params: Any, seed: int) -> Any:
        job = ray.get_runtime_context().get_job_id(), ray.get_runtime_context().gcs_address
        if self._handle is None or job != self._job:
            self._job = job
            from rlws.trainers.distributed.worker import Evaluator  # which imports Ray

            remote = ray.remote(Evaluator).options(num_cpus=0, runtime_env=cluster.process())
            self._handle = remote.remote(*self._arguments, cluster.registered())
        return self._handle.evaluate.remote(params, seed)
