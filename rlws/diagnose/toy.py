"""The agent the doctor looks at: the same algorithm, at toy size and quick to learn."""

import dataclasses
from collections.abc import Collection
from typing import Any

from rlws.agent import AgentConfig
from rlws.critics import Categorical, Critic, ImplicitQuantiles, Quantiles
from rlws.networks import MLP, Recurrent
from rlws.settings import change
from rlws.stacking import Stacked

DISCOUNTS = "discount", "gamma"  # names of the setting
DISCOUNT = 0.9  # far enough from 1 for a discount left out to show

# By the names the zoo, or the field, gives settings; what an agent does not have is left alone.
SETTINGS: dict[str, Any] = {
    **dict.fromkeys(DISCOUNTS, DISCOUNT),
    "learning_rate": 3e-3,
    "lr": 3e-3,
    "value_learning_rate": 1e-2,
    "critic_learning_rate": 3e-3,
    "anneal_steps": None,
    "temperature": 0.01,  # values are of rewards, then, not of entropy
    **dict.fromkeys(("entropy_cost", "ent_coef"), 0.0),
    "entropy_share": 0.0,
    **dict.fromkeys(("target_rate", "tau"), 0.05),
    **dict.fromkeys(("target_period", "target_frequency", "target_update_interval"), 20),
    "target_network_frequency": 20,
    "unroll_length": 32,
    **dict.fromkeys(("epochs", "update_epochs"), 4),
    **dict.fromkeys(("minibatches", "num_minibatches"), 4),
    "sequence_length": 8,
    "episodes_per_update": 8,
    "batch_size": 16,
    **dict.fromkeys(("capacity", "buffer_size"), 2_000),
    **dict.fromkeys(("min_size", "learning_starts"), 100),
    "random_steps": 200,
    "epsilon_steps": 500,
    **dict.fromkeys(("period", "train_frequency", "train_freq"), 2),
    "updates": 1,
}
# Turned down for the sake of values; who explores by them needs them.
EXPLORING = "temperature", "entropy_cost", "ent_coef", "entropy_share"
WARM = 0.3  # a temperature at which actions worth 1 more or less are all tried
# Enough to tell one from another; what a target costs goes by the square of each.
CRITICS = 3
QUANTILES = 15
ATOMS = 21


def toy(config: AgentConfig, keep: Collection[str] = ()) -> AgentConfig:
    """Returns the toy version of an agent; of one that stacks observations, of the one within.

    Settings that are to be kept stay as they are.
    """
    if isinstance(config, Stacked):
        return toy(config.agent, keep)
    # What is switched off, such as the temperature of a greedy target, or the target, stays off.
    off = lambda value: value is None or (type(value) in (int, float) and value == 0)
    names = {x.name for x in dataclasses.fields(config) if not off(getattr(config, x.name))}
    settings = {name: value for name, value in SETTINGS.items() if name in names}
    for name in ("backbone", "critic_backbone"):
        backbone = getattr(config, name, None)
        if isinstance(backbone, MLP):
            if backbone.batch_norm:  # statistics of fewer would be noise
                settings["batch_size"] = 32
            settings[name] = dataclasses.replace(backbone, hidden_sizes=(32, 32))
        elif isinstance(backbone, Recurrent):
            settings[name] = dataclasses.replace(backbone, encoder=MLP((32,)), size=32)
    critic, drop = getattr(config, "critic", None), getattr(config, "drop", 0)
    if isinstance(critic, Categorical):
        size = min(critic.size, ATOMS)
        critic = dataclasses.replace(critic, size=size, low=-2.0, high=2.0, scale="linear")
    elif isinstance(critic, Quantiles | ImplicitQuantiles) and drop < QUANTILES:
        critic = dataclasses.replace(critic, size=min(critic.size, QUANTILES))
    if isinstance(critic, ImplicitQuantiles):
        critic = dataclasses.replace(critic, embedding=QUANTILES)
    if isinstance(critic, Critic):
        settings["critic"] = critic
    if getattr(config, "critics", 0) > CRITICS >= (getattr(config, "subset", None) or 0):
        settings["critics"] = CRITICS
    backbone = getattr(config, "backbone", None)
    if not isinstance(backbone, Recurrent) or getattr(config, "sequence_length", 1) == 1:
        settings.pop("sequence_length", None)
    return change(config, {name: x for name, x in settings.items() if name not in keep})


def exploring(config: AgentConfig, keep: Collection[str] = ()) -> AgentConfig:
    """Returns the toy version with what it explores by left alone, or a temperature for it."""
    made = toy(config, {*keep, *EXPLORING})
    temperature: Any = getattr(made, "temperature", None)
    cool = type(temperature) in (int, float) and 0 < temperature < WARM
    return change(made, {"temperature": WARM}) if cool else made


def discount_name(config: AgentConfig) -> str | None:
    """Returns what the setting that says gamma is called; None: there is none."""
    return next((name for name in DISCOUNTS if getattr(config, name, None) is not None), None)
