"""When gymnasium's vector environments begin again: in the step after an end, as dm_env's do."""

from typing import Any

import numpy as np

from rlws.settings import SettingError


def restarting(envs: Any) -> Any:
    """Returns gymnasium's vector environment as one that restarts in the step after an end.

    Raises:
      SettingError: it restarts in the step of an end, so that what was last observed is lost.
    """
    from gymnasium.vector import AutoresetMode  # slow to import

    # The attribute first: environments of one class share their metadata, whatever their modes.
    mode = getattr(envs.unwrapped, "autoreset_mode", None) or envs.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
        raise SettingError(
            "autoreset mode must be NEXT_STEP or DISABLED, so that last and first observations have"
            f" rows of their own, got {getattr(mode, 'name', mode)} from {envs}; "
            "make it with autoreset_mode=NEXT_STEP"
        )
    return _Restarting(envs) if mode is AutoresetMode.DISABLED else envs


class _Restarting:
    """A vector environment without autoreset, with one in the step after an end."""

    def __init__(self, envs: Any):
        self._envs, self.close = envs, envs.close

    def reset(self, seed: Any) -> tuple[Any, dict]:
        self._ended = np.zeros(self._envs.num_envs, bool)
        return self._envs.reset(seed=seed)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict]:
        ended = self._ended
        if ended.any():
            # All are stepped or none, and none that has ended: so those begin an episode, only to
            # be stepped with the others, and then begin another.
            self._envs.reset(options={"reset_mask": ended})
        observation, reward, terminated, truncated, info = self._envs.step(actions)
        if ended.any():
            observation, _ = self._envs.reset(options={"reset_mask": ended})
            terminated, truncated = terminated & ~ended, truncated & ~ended
        self._ended = terminated | truncated
        return observation, reward, terminated, truncated, info
