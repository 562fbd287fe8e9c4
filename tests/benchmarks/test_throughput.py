import itertools
import sys

import jax
import numpy as np
import pytest

from benchmarks import reference_dqn, reference_ppo, throughput
from benchmarks.peers import install, ours, reference
from benchmarks.peers.contestant import Contestant, LeftOutError, Start, command
from benchmarks.peers.workloads import PPO, WORKLOADS, Workload
from rlws import environments

WORKLOAD = Workload("device", "ppo", PPO(1), 100)


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        ([False, False, False], [3.85344, 2.852, 1.6]),
        ([False, False, True], [1.9872, 0.26, -2.0]),  # nothing of what follows
        ([True, False, False], [0.0, 2.852, 1.6]),
    ],
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_advantages_of_the_reference_are_those_worked_by_hand(done, expected, transform):
    column = lambda *x: np.array(x)[:, None]
    found = transform(reference_ppo.advantages)(
        column(1.0, 1.0, 1.0), column(1.0, 2.0, 3.0), column(*done), np.array([4.0]), 0.9, 0.8
    )
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6, atol=1e-6)


def test_loss_of_the_reference_is_that_worked_by_hand():
    init = lambda: reference_ppo.init(reference_ppo.Settings(), jax.random.key(0)).params
    zeros = lambda x: np.zeros(x.shape, x.dtype)
    params = jax.tree.map(zeros, jax.eval_shape(init))  # a uniform policy and V = 0
    batch = reference_ppo.Batch(
        observation=np.zeros((2, 4), np.float32),
        action=np.array([0, 1], np.int32),
        # So that the ratios are 2, clipped 1.2, and 1.
        log_prob=np.log(np.array([0.25, 0.5], np.float32)),
        value=np.array([0.0, 1.0], np.float32),
        advantage=np.array([3.0, 1.0], np.float32),  # standardised 1 and -1; targets 3 and 2
    )
    value_loss = (3**2 + max(2**2, (0.8 - 2) ** 2)) / 2 / 2
    expected = -(1.2 - 1.0) / 2 + 0.5 * value_loss - 0.01 * np.log(2)
    np.testing.assert_allclose(jax.jit(reference_ppo.loss)(params, batch), expected, rtol=1e-5)


@pytest.mark.slow
def test_reference_learns_cartpole_a_bit():
    settings = reference_ppo.Settings()
    state = jax.jit(lambda key: reference_ppo.init(settings, key))(jax.random.key(0))
    _, ended = jax.jit(lambda state: reference_ppo.train(settings, state, 60))(state)
    length = lambda ended: settings.num_envs * settings.unroll_length * len(ended) / ended.sum()
    assert length(ended[:2]) < 40
    assert length(ended[-10:]) > 120


def test_reference_and_we_have_the_same_network_for_images():
    pytest.importorskip("gymnax")
    workload = WORKLOADS["device_ppo_minatar_8"]
    environment = environments.make(ours.MINATAR)
    settings = reference_ppo.Settings(8, hidden=(128,), channels=16, environment=environment)
    theirs = jax.eval_shape(lambda: reference_ppo.init(settings, jax.random.key(0)).params)
    learner = ours.config(workload).make(environment.spec()).learner
    mine = jax.eval_shape(lambda: learner.init(jax.random.key(0)).params)
    sizes = lambda tree: sorted(x.shape for x in jax.tree.leaves(tree))
    assert sizes(mine) == sizes(theirs)
    assert (3, 3, 4, 16) in sizes(mine)


@pytest.mark.slow
def test_images_are_learned_from_at_toy_size():
    pytest.importorskip("gymnax")
    workload = WORKLOADS["device_ppo_minatar_8"]
    for contestant in (ours, reference):
        steps, updates = contestant.make(workload, workload.chunk)(3)
        assert updates == 3 * 4 * 8
        assert steps == pytest.approx(3 * workload.chunk, rel=0.2)


class Clock:
    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now


class Fake:
    """Takes so many seconds for a step of the environment, in each segment another."""

    def __init__(self, clock, name, seconds_per_step):
        self.clock, self.name, self.seconds = clock, name, itertools.cycle(seconds_per_step)

    def run(self, chunks):
        self.clock.log.append(self.name)
        steps = chunks * WORKLOAD.chunk
        seconds = steps * next(self.seconds)
        self.clock.now += seconds
        return {"steps": steps, "seconds": seconds, "updates": steps / 8}


class Broken:
    def run(self, chunks):
        raise LeftOutError("no such module")


@pytest.fixture
def raced(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("benchmarks.measure.time.perf_counter", clock)
    contestants = {
        # Two segments to warm up and one round that does not count, then three that do.
        "a": Fake(clock, "a", [9.0, 0.001, 9.0, 0.001, 0.002, 0.003]),
        "broken": Broken(),
        "b": Fake(clock, "b", [9.0, 0.01, 9.0, 0.002, 0.008, 0.009]),
    }
    return clock.log, *throughput.race(contestants, WORKLOAD, rounds=3)


def test_race_alternates(raced):
    log, _, _ = raced
    assert log == ["a", "a", "b", "b"] + ["a", "b"] * 4


def test_race_measures_each_round_and_leaves_out_who_cannot(raced):
    _, speeds, absent = raced
    np.testing.assert_allclose(speeds["a"].seconds, [0.001, 0.002, 0.003])
    np.testing.assert_allclose(speeds["b"].seconds, [0.002, 0.008, 0.009])
    assert speeds["a"].updates_per_step == 1 / 8
    assert absent == {"broken": "no such module"}


def test_ratios_are_of_the_same_round(raced):
    _, speeds, _ = raced
    ratios = throughput.ratios(speeds)
    assert ratios["a"] == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(ratios["b"], [3.0, 2.2, 3.8])  # of 2, 4 and 3


def test_rows_name_workload_contestant_and_numbers(raced):
    _, speeds, _ = raced
    starts = {"b": Start(empty=5.04, filled=2.0, compiling=1.5)}
    assert throughput.rows("host_ppo_4", speeds, starts) == [
        "| host_ppo_4 | a | 500 | 1.00 [1.00, 1.00] | 125 |  |  |  |",
        "| host_ppo_4 | b | 125 | 3.00 [2.20, 3.80] | 125 | 5.0 | 2.0 | 1.5 |",
    ]


SERVER = """
from benchmarks.peers.serve import serve

def make(workload, chunk):
    total = 0

    def advance(chunks):
        nonlocal total
        print("chatter")
        if chunks > 5:
            raise ValueError("too many")
        total += chunks * chunk
        return total, total // 2

    return advance

serve(make)
"""


def test_contestant_answers_with_what_was_done_since_the_last_request():
    with Contestant([sys.executable, "-c", SERVER, "host_ppo_4", "10"]) as contestant:
        first, second = contestant.run(1), contestant.run(3)
        with pytest.raises(LeftOutError, match="ValueError: too many"):
            contestant.run(6)
    assert (first["steps"], first["updates"]) == (10, 5)
    assert (second["steps"], second["updates"]) == (30, 15)
    assert second["seconds"] >= 0


def test_contestant_that_cannot_start_says_why():
    with (
        Contestant([sys.executable, "-c", "import no_such_module"]) as contestant,
        pytest.raises(LeftOutError, match="No module named 'no_such_module'"),
    ):
        contestant.run(1)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    made = []

    def create(folder, with_pip):
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(install.venv, "create", create)
    monkeypatch.setattr(install, "_install", lambda name, python, log: made.append(name))
    return made


def test_environments_are_made_once_for_their_pins(installed, monkeypatch):
    python = install.interpreter("sb3")
    assert install.interpreter("sb3") == python == str(install.cache() / "sb3" / "bin" / "python")
    assert installed == ["sb3"]
    monkeypatch.setitem(install.PINS, "sb3", ("other==1",))
    install.interpreter("sb3")
    assert installed == ["sb3", "sb3"]


def test_an_environment_that_failed_is_made_again(installed, monkeypatch):
    def fail(*_):
        raise install.NotInstalledError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(install, "_install", fail)
        with pytest.raises(LeftOutError, match="no network"):
            command("sbx", "host_ppo_4", 512)
    command("sbx", "host_ppo_4", 512)
    assert installed == ["sbx"]


def test_we_run_in_this_interpreter(installed):
    assert install.interpreter("ours") == install.interpreter("reference") == sys.executable
    assert not installed


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_are_made_of_whole_batches(name):
    workload = WORKLOADS[name]
    settings = workload.settings
    whole = settings.first if isinstance(settings, PPO) else settings.period
    assert workload.chunk % whole == 0
    assert settings.first % settings.num_envs == 0


@pytest.mark.parametrize("name", WORKLOADS)
def test_our_settings_of_workloads_are_valid(name):
    workload = WORKLOADS[name]
    config, settings = ours.config(workload), workload.settings
    sizes = config.backbone.mlp if getattr(settings, "channels", 0) else config.backbone
    assert tuple(sizes.hidden_sizes) == tuple(settings.hidden)


def test_dqn_by_hand_does_what_the_workload_says_and_its_ring_holds_steps():
    agent = reference_dqn.DQN(reference_dqn.Settings(hidden=(4,), batch=8, capacity=64, starts=20))
    agent.run(100)
    assert (agent.steps, agent.updates) == (100, 81)
    observation, action, reward, discount, following = agent._ring
    # Step 99 lies at 99 % 64, and leads to where the next one begins, unless that is a new episode.
    goes_on = discount[1:35] == 1.0
    np.testing.assert_array_equal(following[1:35][goes_on], observation[2:36][goes_on])
    assert set(action) <= {0, 1}
    assert (reward == 1.0).all()
