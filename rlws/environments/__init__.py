"""Environments: `make(name)` makes one, `spec(environment)` is what an agent may know of it."""

from rlws.environments.actions import clip_actions as clip_actions
from rlws.environments.adapters import episode_key as episode_key
from rlws.environments.adapters import to_dm_env as to_dm_env
from rlws.environments.cartpole import CartPole as CartPole
from rlws.environments.catch import Catch as Catch
from rlws.environments.deep_sea import DeepSea as DeepSea
from rlws.environments.info import WithInfo as WithInfo
from rlws.environments.jax_environment import JaxEnvironment as JaxEnvironment
from rlws.environments.jax_environment import spec as spec
from rlws.environments.memory import Memory as Memory
from rlws.environments.registry import Environment as Environment
from rlws.environments.registry import available as available
from rlws.environments.registry import make as make
from rlws.environments.registry import register as register
