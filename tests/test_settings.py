"""Settings: frozen without a decorator, checked when made, changed and swept."""

import contextlib
import dataclasses
import importlib
import json
import math
import pathlib
import pkgutil
import types
import typing
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

import agents_zoo
import rlws
from agents_zoo import a2c, dqn, impala, ppo, reinforce, sac, td3
from rlws import networks, settings
from rlws.networks import CNN, GRU
from rlws.runs.experiment import Experiment
from rlws.settings import (
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Range,
    SettingError,
    Settings,
    change,
    choose,
    describe,
    revive,
    whole,
)
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.trainers.distributed.trainer import DistributedTrainer
from rlws.types import EnvironmentSpec


class Inner(Settings):
    sizes: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"


class Toy(Settings):
    rate: Positive = 1e-3
    fraction: Fraction = 0.5
    cost: NonNegative = 0.0
    count: PositiveInt = 4
    start: NonNegativeInt = 0
    flag: bool = False
    name: str = "toy"
    limit: PositiveInt | None = None
    unit: Annotated[float, Range(-1.0, 1.0)] = 0.0
    plain: int = 0
    inner: Inner = Inner()


class Child(Toy):
    extra: PositiveInt = 1


@pytest.mark.parametrize("cls", [Inner, Toy, Child])
def test_settings_subclasses_are_frozen_without_a_decorator(cls):
    record = cls()
    name = dataclasses.fields(cls)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, 1)
    assert record == cls()
    assert hash(record) == hash(cls())


def test_settings_inherit_fields():
    assert Child(rate=0.1, extra=2).rate == 0.1
    with pytest.raises(SettingError, match=r"^Child\.rate must be greater than 0, got -1$"):
        Child(rate=-1)


def test_settings_refuse_to_be_thawed():
    with pytest.raises(TypeError, match="non-frozen"):

        @dataclasses.dataclass
        class Thawed(Toy):
            more: int = 0


def test_settings_stay_frozen_under_a_plain_dataclass_decorator():
    # Python refuses this only one level further down; what matters is that it stays frozen.
    @dataclasses.dataclass
    class Decorated(Settings):
        more: PositiveInt = 1

    with pytest.raises(dataclasses.FrozenInstanceError):
        Decorated().more = 2
    with pytest.raises(SettingError):
        Decorated(more=0)


def test_settings_replace_checks_again():
    assert dataclasses.replace(Toy(), rate=0.5) == Toy(rate=0.5)
    with pytest.raises(SettingError, match=r"^Toy\.fraction must be at least 0 and at most 1, got"):
        dataclasses.replace(Toy(), fraction=1.01)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rate", 0, "greater than 0, got 0"),
        ("rate", -0.5, "greater than 0, got -0.5"),
        ("rate", math.nan, "greater than 0, got nan"),
        ("rate", "3", "a number, got '3'"),
        ("rate", None, "a number, got None"),
        ("rate", True, "a number, got True"),
        ("rate", 1j, "a number, got 1j"),
        ("fraction", -1e-9, "at least 0 and at most 1, got -1e-09"),
        ("fraction", 2, "at least 0 and at most 1, got 2"),
        ("fraction", math.nan, "at least 0 and at most 1, got nan"),
        ("cost", -1, "at least 0, got -1"),
        ("count", 0, "at least 1, got 0"),
        ("count", 1.0, "a whole number, got 1.0"),
        ("count", "4", "a whole number, got '4'"),
        ("count", False, "a whole number, got False"),
        ("count", None, "a whole number, got None"),
        ("start", -1, "at least 0, got -1"),
        ("flag", 1, "a bool, got 1"),
        ("flag", "yes", "a bool, got 'yes'"),
        ("name", 3, "a str, got 3"),
        ("limit", 0, "at least 1, got 0"),
        ("limit", 2.5, "a whole number, got 2.5"),
        ("unit", 1.5, "at least -1 and at most 1, got 1.5"),
        ("plain", 1.5, "a whole number, got 1.5"),
        ("inner", Inner, f"settings of kind Inner, got {Inner!r}"),
    ],
)
def test_settings_errors_name_setting_rule_and_value(field, value, message):
    with pytest.raises(SettingError) as error:
        Toy(**{field: value})
    assert str(error.value) == f"Toy.{field} must be {message}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate", 1),
        ("rate", 1e-30),
        ("rate", np.float32(0.1)),
        ("fraction", 0),
        ("fraction", 1.0),
        ("cost", 0),
        ("count", 1),
        ("count", np.int64(7)),
        ("start", 0),
        ("plain", -3),
        ("limit", None),
        ("limit", 3),
        ("unit", -1.0),
    ],
)
def test_settings_accept_what_the_rule_allows(field, value):
    assert getattr(Toy(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("value", "hint"),
    [("relo", "did you mean 'relu'?"), ("softmax!", "one of: tanh, relu"), (None, "one of: tanh")],
)
def test_settings_choices_suggest_the_nearest(value, hint):
    with pytest.raises(SettingError) as error:
        Inner(activation=value)
    assert str(error.value).startswith(f"Inner.activation: unknown value {value!r}; {hint}")


def test_choose_accepts_any_iterable_of_options():
    choose("thing", "b", iter("abc"))
    with pytest.raises(SettingError, match=r"^thing: unknown value 'd'; one of: a, b, c$"):
        choose("thing", "d", iter("abc"))


def test_settings_pass_tracers_and_arrays():
    def rates(rate):
        made = Child(rate=rate, fraction=rate, limit=None)
        return dataclasses.replace(made, cost=2 * rate).cost + made.rate

    # Out of range for `fraction`: values of tracers are not known.
    np.testing.assert_array_equal(jax.vmap(rates)(jnp.arange(3.0)), [0, 3, 6])
    np.testing.assert_array_equal(jax.jit(rates)(2.0), 6)
    assert Toy(rate=jnp.float32(2)).rate == 2
    assert Toy(count=jnp.int32(2)).count == 2


def test_describe_is_json_able_and_complete():
    class Holder(Settings):
        toy: Toy = Toy(limit=3)
        table: dict = dataclasses.field(default_factory=lambda: {1: (Inner(), None)})
        other: type = int

    described = describe(Holder())
    assert json.loads(json.dumps(described)) == described
    assert described["type"].endswith(":test_describe_is_json_able_and_complete.<locals>.Holder")
    assert described["toy"]["inner"] == {
        "type": f"{__name__}:Inner",
        "sizes": [64, 64],
        "activation": "tanh",
    }
    assert described["toy"]["limit"] == 3
    assert set(described["toy"]) == {"type", *(field.name for field in dataclasses.fields(Toy))}
    assert described["table"] == {"1": [described["toy"]["inner"], None]}
    assert described["other"] == "<class 'int'>"


def test_describe_tells_different_settings_apart():
    assert describe(Toy()) != describe(Child())
    assert describe(Toy()) != describe(Toy(inner=Inner(activation="relu")))


ROOT = pathlib.Path(__file__).parents[1]


def names(folder):
    """Returns the modules in a folder, as of a package."""
    return [f"{folder}.{p.stem}" for p in sorted((ROOT / folder).glob("[!_]*.py"))]


def through_json(settings):
    return revive(json.loads(json.dumps(describe(settings))))


@pytest.mark.parametrize("module", names("agents_zoo"))
@pytest.mark.parametrize("backbone", [networks.MLP((7,)), networks.GRU(size=3), networks.CNN()])
def test_revive_undoes_describe_for_agents(module, backbone):
    made = importlib.import_module(module).Config()
    for config in (made, dataclasses.replace(made, discount=0.5, backbone=backbone)):
        found = through_json(config)
        assert type(found) is type(config)
        assert found == config
        assert hash(found) == hash(config)


@pytest.mark.parametrize("module", names("experiments"))
def test_revive_undoes_describe_for_experiments(module):
    made = importlib.import_module(module).experiment
    changes = {"sweep": ("agent.discount=0.9,0.99",), "track": ("jsonl",), "directory": "run"}
    for experiment in (made, dataclasses.replace(made, steps=None, episodes=3, **changes)):
        assert through_json(experiment) == experiment


def test_revive_fills_in_settings_that_are_newer():
    described = describe(Toy(rate=0.5))
    del described["limit"], described["inner"]["activation"]
    assert revive(described) == Toy(rate=0.5)


class Needs(Settings):
    rate: Positive
    other: Positive = 1.0


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"type": "os:system", "command": "touch canary"}, "no class of settings 'os:system'"),
        ({"type": "os:system('touch canary')"}, r"no class of settings \"os:system\('touch"),
        ({"type": "builtins:eval", "source": "open('canary', 'w')"}, "no class of settings"),
        ({"type": "rlws.settings:choose"}, "no class of settings"),
        ({"type": "no.such.module:Class"}, "'no.such.module:Class' here, of an installed"),
        ({"type": "agents_zoo.pqo:Config"}, "'agents_zoo.pqo:Config' here"),
        ({"type": "agents_zoo.ppo:Confog"}, "'agents_zoo.ppo:Confog' here"),
        ({"type": "agents_zoo.ppo"}, "'agents_zoo.ppo' here"),
        ({"type": ".ppo:Config"}, "'.ppo:Config' here"),
        ({"type": ""}, "'' here"),
        ({"type": None}, "None here"),
        ({"type": ["agents_zoo.ppo:Config"]}, "here, of an installed"),
        # Moved fields: of another name, gone, new without a default, of another kind.
        (
            {"type": "agents_zoo.ppo:Config", "learning_rat": 1.0},
            r"^settings: setting of Config: unknown value 'learning_rat'; did you mean "
            "'learning_rate'",
        ),
        ({"type": "agents_zoo.ppo:Config", "learning_rate": -1.0}, "greater than 0, got -1.0"),
        ({"type": "agents_zoo.ppo:Config", "learning_rate": "open('canary', 'w')"}, "a number"),
        ({"type": f"{__name__}:Needs", "other": 1.0}, "^settings: Needs needs rate, got none$"),
        ({"type": f"{__name__}:Toy", "inner": 3}, r"Toy\.inner must be settings of kind Inner"),
        (
            {"type": f"{__name__}:Toy", "inner": {"sizes": [1]}},
            r"Toy\.inner must be settings of kind Inner, got \{'sizes': \(1,\)\}",
        ),
        (
            {"type": f"{__name__}:Toy", "inner": {"type": f"{__name__}:Inner", "size": [1]}},
            r"^settings\.inner: setting of Inner: unknown value 'size'; did you mean 'sizes'",
        ),
    ],
)
def test_revive_makes_nothing_but_settings(description, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=message):
        revive(json.loads(json.dumps(description)))
    assert not list(tmp_path.iterdir())


CONFIGS = {
    **{module.__name__: module.Config() for module in (a2c, dqn, impala, ppo, reinforce, sac, td3)},
    "cnn": ppo.Config(backbone=CNN()),
    "gru": ppo.Config(backbone=GRU()),
    "experiment": Experiment("name", "jax:Catch", ppo.Config(), DeviceTrainer()),
    "host": Experiment("name", "jax:Catch", ppo.Config(), HostTrainer()),
    "distributed": Experiment("name", "jax:Catch", ppo.Config(), DistributedTrainer()),
}
UNREASONABLE = (math.inf, -math.inf, math.nan, 10**18, 1e18, -1e18, (), "x", [1], object())


def numeric(config, prefix=""):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Settings):
            yield from numeric(value, f"{prefix}{field.name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + field.name


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_no_number_is_out_of_reason(config):
    for name in numeric(config):
        # A budget may be as large as a row of metrics can say, which is less.
        for value in UNREASONABLE:
            with pytest.raises(SettingError) as error:
                change(config, {name: value})
            assert name.rpartition(".")[2] in str(error.value)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mlp.hidden_sizes", "channels", "kernels", "strides"])
@pytest.mark.parametrize("value", [(0,), (-1,), (8, math.inf), (2.5,), ("x",), [8], 8, (10**18,)])
def test_elements_of_tuples_are_checked(name, value):
    with pytest.raises(SettingError, match=name.rpartition(".")[2]):
        change(CNN(), {name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernels": (9,)}, "CNN: kernels must be no larger than what they see, got 9 for 8 x 8"),
        ({"channels": (4, 4)}, r"must be as many as there are convolutions, got \(4, 4\), \(3,\)"),
    ],
)
def test_convolutions_fit_the_image(settings, message):
    image = specs.BoundedArray((8, 8, 1), np.uint8, 0, 255)
    spec = EnvironmentSpec(image, specs.DiscreteArray(2))
    with pytest.raises(SettingError, match=message):
        ppo.Config(backbone=CNN(**settings)).make(spec)


def every(cls=Settings):
    """Yields all classes of settings that rlws and its agents have."""
    for child in cls.__subclasses__():
        if child.__module__.partition(".")[0] in ("rlws", "agents_zoo"):
            yield child
        yield from every(child)


for package in (rlws, agents_zoo):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        with contextlib.suppress(ImportError):  # of an extra
            importlib.import_module(found.name)


def hints(hint):
    """Yields what a number, or the elements of a tuple, must be: each as a hint."""
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if typing.get_origin(kind) in (types.UnionType, typing.Union, tuple):
        for part in typing.get_args(kind):
            yield from hints(part)
    elif kind in (int, float):
        yield hint


NUMBERS = [
    pytest.param(name, hint, id=name)
    for cls in sorted(set(every()), key=str)
    for field, whole in settings._hints(cls).items()
    for hint in hints(whole)
    for name in [f"{cls.__module__}.{cls.__qualname__}.{field}"]
]
NEGATIVE = {
    *(
        f"agents_zoo.{name}.Config.target_entropy"
        for name in ("sac", "tqc", "redq", "droq", "crossq")
    ),
    "rlws.critics.Categorical.low",
    "rlws.critics.Categorical.high",
    "rlws.networks.heads.TanhNormalPolicy.log_std_min",
    "rlws.networks.heads.TanhNormalPolicy.log_std_max",
}


@pytest.mark.parametrize(("name", "hint"), NUMBERS)
def test_every_number_has_a_range(name, hint):
    def accepted(value):
        try:
            settings.check(name, hint, value)
        except SettingError:
            return False
        return True

    assert not any(map(accepted, (math.inf, -math.inf, math.nan, 1e18, 10**18, True, "1")))
    assert accepted(-1) == (name in NEGATIVE)


def test_numbers_of_all_classes_are_looked_at():
    assert len(NUMBERS) > 150


@pytest.mark.parametrize(
    ("text", "value"),
    [("20", 20), ("2_000", 2000), ("1e6", 10**6), ("1.5M", 1_500_000), ("2k", 2000), ("-3", -3)],
)
def test_whole_numbers_as_people_type_them(text, value):
    assert whole(text) == value


@pytest.mark.parametrize("text", ["", "k", "1.5", "1.2345k", "1e99", "nan", "inf", "2kk", "1,000"])
def test_what_is_no_whole_number(text):
    with pytest.raises(ValueError, match="is no whole number"):
        whole(text)


def features(observation):
    """A backbone without settings."""
    return observation


def test_a_plain_function_may_stand_for_settings_that_are_called():
    config = reinforce.Config(backbone=features)
    described = describe(config)
    assert described["backbone"] == f"function:{__name__}:features"
    assert revive(described) == config
    with pytest.raises(SettingError, match="backbone must be settings of kind Backbone, got 3"):
        reinforce.Config(backbone=3)
    with pytest.raises(SettingError, match="must be settings of kind Evaluation, got <function"):
        Experiment(name="x", environment="jax:Catch", agent=config, evaluation=features)
