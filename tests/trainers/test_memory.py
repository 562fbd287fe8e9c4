"""What a run will hold in memory is known before it is taken, and what there is."""

import dataclasses

import pytest

from agents_zoo import dqn, ppo, sac
from rlws import environments
from rlws.networks import MLP
from rlws.settings import SettingError
from rlws.trainers import memory

CATCH = environments.make("jax:Catch")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes what the kernel says of a machine with 8 GB, of which 6 are free."""
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "proc")

    def write(groups="", **files):
        files = {"proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable:    6000000 kB\n", **files}
        for name, text in ({"proc/self/cgroup": groups} | files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))

    return write


STAT = "cache 5\ninactive_file 200\ntotal_inactive_file 300\n"


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("", {}, 6_000_000 * 1024),
        ("0::/", {"memory.max": "max", "memory.current": 7}, 6_000_000 * 1024),
        ("0::/", {"memory.max": 2000, "memory.current": 900}, 1100),
        # What was read of files, and can be read again, is no use of memory.
        ("0::/", {"memory.max": 2000, "memory.current": 1900, "memory.stat": STAT}, 300),
        ("0::/a/b", {"a/memory.max": 2000, "a/memory.current": 900}, 1100),  # of all above it
        ("0::/not/here", {"memory.max": 2000, "memory.current": 900}, 1100),  # in a container
        ("0::/", {"memory.max": 2000, "memory.current": 2900}, 0),
        (
            "4:memory:/job\n0::/",
            {
                "memory/job/memory.limit_in_bytes": 2000,
                "memory/job/memory.usage_in_bytes": 900,
                "memory/job/memory.stat": STAT,
                "memory/memory.limit_in_bytes": 2**63 - 4096,
                "memory/memory.usage_in_bytes": 5000,
            },
            1400,
        ),
    ],
)
def test_free_memory_is_what_the_tightest_limit_leaves(groups, files, free, machine):
    machine(groups, **{f"cgroup/{name}": text for name, text in files.items()})
    assert memory.free_memory() == free


PENDULUM = environments.spec(environments.make("gym:Pendulum-v1"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "num_envs", "lower"),
    [
        (dqn.Config(capacity=10**9), 1, "agent.capacity"),
        (dqn.Config(capacity=2**31 - 1, prioritised=True), 1, "agent.capacity"),
        (ppo.Config(), 10**7, "trainer.num_envs or agent.unroll_length"),
        (ppo.Config(unroll_length=2**26), 8, "trainer.num_envs or agent.unroll_length"),
        (ppo.Config(backbone=MLP((200_000, 200_000))), 8, "agent.backbone.hidden_sizes"),
        (sac.Config(capacity=10**9), 1, "agent.capacity"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_lower(config, num_envs, lower, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 2 * 10**9)
    continuous = isinstance(config, sac.Config)
    spec, environment = (PENDULUM, None) if continuous else (CATCH.spec(), CATCH)
    with pytest.raises(SettingError, match=r"the 2\.0 GB of memory.*, got [\d.,]+ GB; lower ") as e:
        memory.check_memory(config, spec, num_envs, environment)
    assert str(e.value).endswith(f"; lower {lower}")
    small = {"capacity": 1000} if "capacity" in lower else {}
    usual = dataclasses.replace(type(config)(), **small)
    memory.check_memory(usual, spec, 1, environment)
