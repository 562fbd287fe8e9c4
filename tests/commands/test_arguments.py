"""What is wrong with an argument is said before anything is compiled."""

import pytest


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "TOY", "--episodes", "0"], "--episodes must be at least 1"),
        (
            ["evaluate", "TOY", "--episodes", "2000000000"],
            "--episodes must be at least 1 and at mo",
        ),
        (["evaluate", "TOY", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["evaluate", "TOY", "--seed", "4000000000"], "--seed must be at least 0 and at most"),
        (["watch", "TOY", "--episodes", "-1"], "--episodes must be at least 1"),
        (["diagnose", "agents_zoo.ppo", "--seeds", "0"], "--seeds must be at least 1"),
        (["diagnose", "agents_zoo.ppo", "--steps", "-5"], "--steps must be at least 1, got -5"),
        (["diagnose", "agents_zoo.ppo", "--discount", "7"], "--discount must be at least 0 and at"),
        (["diagnose", "agents_zoo.ppo", "--discount", "nan"], "--discount must be at least 0 and"),
        (["diagnose", "agents_zoo.ppo", "--only", "P99"], "unknown value 'P99'; one of: actor"),
        (
            ["run", "catch_reinforce", "--trainer.num-seeds", "2000000000"],
            "num-seeds must be at le",
        ),
        (
            ["run", "catch_reinforce", "--evaluation.episodes", "2000000000"],
            "episodes must be at l",
        ),
        (
            ["run", "catch_reinforce", "--trainer.num-seeds", "9", "--seed", "2147483640"],
            "seed of the last must be at least 0 and at most 2147483647, got 2147483648",
        ),
        (["list", "agentz"], "unknown value 'agentz'; did you mean 'agents'"),
        (["plot", "TOY", "--metric", "nosuch"], "nosuch"),
    ],
)
def test_what_is_out_of_reason_or_matches_nothing_is_one_line(args, message, toy, refused):
    assert message in refused(*[str(toy) if arg == "TOY" else arg for arg in args])
