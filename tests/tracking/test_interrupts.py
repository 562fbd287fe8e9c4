"""Signals: pending while deferred, an exception otherwise, and the end at the second."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from rlws.tracking.interrupts import SIGNALS, Interrupted, Interrupts, handlers_kept

ROOT = pathlib.Path(__file__).parents[2]
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def start(code):
    """Starts a process of this code, which says "ready" when signals may come."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process, seconds=30):
    """Returns status and stderr of a process that must end by itself."""
    try:
        _, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, err


@pytest.fixture(autouse=True)
def _handlers_stay_as_they_were():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_raised_where_it_is_opened(number):
    with pytest.raises(Interrupted) as error, Interrupts() as interrupts, interrupts.opened():
        signal.raise_signal(number)
    assert error.value.status == STATUS[number]
    assert isinstance(error.value, KeyboardInterrupt)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_waits_and_is_raised_when_next_opened(number):
    with Interrupts() as interrupts:
        interrupts.check()
        with interrupts.opened():
            pass
        signal.raise_signal(number)
        assert interrupts.pending()
        with pytest.raises(Interrupted) as error, interrupts.opened():
            raise AssertionError("it was let in")
        with pytest.raises(Interrupted), interrupts.opened():  # nor another time
            raise AssertionError("it was let in")
        assert error.value.status == STATUS[number]
        with pytest.raises(Interrupted):
            interrupts.check()
        interrupts._number = 0


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_that_nobody_looked_for_is_raised_at_the_end(number):
    with pytest.raises(Interrupted) as error, Interrupts():
        signal.raise_signal(number)
    assert error.value.status == STATUS[number]
    with pytest.raises(TypeError), Interrupts():
        len(signal.raise_signal(number))  # of None: an error goes first


def test_only_the_first_signal_is_raised(monkeypatch):
    monkeypatch.setattr(os, "_exit", lambda status: None)  # of the thread that watches
    with Interrupts() as interrupts:
        try:
            with interrupts.opened():
                signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            signal.raise_signal(signal.SIGTERM)  # while it is saved, say
        interrupts._number = 0


def test_what_was_lost_is_told():
    error = ValueError("broken\njoint")
    error.add_note("environment 3, step 2\nand so on")
    interrupts = Interrupts("go on so")
    interrupts.check(lost=error)  # there was no signal
    interrupts._number = signal.SIGTERM
    with pytest.raises(Interrupted) as found:
        interrupts.check(lost=error)
    assert found.value.__cause__ is error
    assert found.value.remedy == (
        "not saved since the last checkpoint because of ValueError: broken joint; "
        "environment 3, step 2; go on so"
    )


def test_nothing_is_pending_without_a_signal():
    with Interrupts() as interrupts:
        assert not interrupts.pending()
        interrupts.check()


def test_handlers_and_wakeup_are_restored():
    said = []
    before = signal.signal(signal.SIGTERM, lambda *_: said.append("mine"))
    try:
        with Interrupts():
            assert signal.getsignal(signal.SIGTERM) is not before
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert said == ["mine"]
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        assert wakeup == -1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_enter_and_leave_leave_no_thread_and_no_file():
    count = lambda: (len(os.listdir("/proc/self/fd")), threading.active_count())
    before = count()
    for _ in range(100):
        with Interrupts():
            pass
    deadline = time.monotonic() + 5
    while count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_interrupts_in_another_thread_change_nothing():
    found = []

    def enter():
        with Interrupts() as interrupts:
            found.append((interrupts.pending(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGTERM))]


BLOCKED = """
import contextlib, time
from rlws.tracking import interrupts
interrupts.GRACE = {grace}
with contextlib.suppress(interrupts.Interrupted), interrupts.Interrupts() as found:
    print("ready", flush=True)
    {blocked}
print("went on")
"""
# Python's handlers do not run in the second: it does not come back to the interpreter.
LOOPS = (
    "while True: time.sleep(0.01)",
    "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",
)


@pytest.mark.parametrize("blocked", LOOPS)
@pytest.mark.parametrize(("first", "second"), [("INT", "INT"), ("TERM", "INT"), ("TERM", "TERM")])
def test_second_signal_ends_the_process_at_once(blocked, first, second):
    process = start(BLOCKED.format(grace=60, blocked=blocked))
    process.stdout.readline()
    process.send_signal(getattr(signal, f"SIG{first}"))
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(getattr(signal, f"SIG{second}"))
    status, err = end(process)  # which waits for less than GRACE
    assert status == STATUS[getattr(signal, f"SIG{first}")]
    assert err == "stopping; once more to stop without saving\n"


def test_grace_ends_what_does_not_return():
    process = start(BLOCKED.format(grace=0.5, blocked=LOOPS[1]))
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    status, err = end(process)  # the computation goes on for longer than this waits
    assert status == 143
    assert err.splitlines()[-1].startswith("error: what is under way has not returned")


@pytest.mark.parametrize(
    ("blocked", "status"),
    [
        ("pass", 0),
        ("time.sleep(1)", 143),
        ("with found.saving(): time.sleep(1)", 0),
        ("with found.saving(): pass\n    time.sleep(2)", 143),
    ],
)
def test_grace_leaves_in_peace_what_returns_and_what_saves(blocked, status):
    wait = "while not found.pending(): time.sleep(0.01)"
    code = BLOCKED.format(grace=0.4, blocked=f"{wait}\n    {blocked}")
    process = start(code + "time.sleep(0.6)")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    ended, err = end(process)
    assert ended == status
    assert ("error" in err) == bool(status)


@pytest.mark.parametrize("gone", ["closed", "pipe", "none"])
def test_a_terminal_that_is_gone_keeps_nobody_from_watching(gone):
    # Its hangup ends the process in the end, although the first message cannot be said.
    close = {
        "closed": "sys.stderr.close()",
        "pipe": "read, write = os.pipe(); os.dup2(write, 2); os.close(write); os.close(read)",
        "none": "sys.stderr = None; os.close(2)",
    }[gone]
    process = start(f"import os\n{close}\n" + BLOCKED.format(grace=0.4, blocked=LOOPS[0]))
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert end(process)[0] == 129


def test_other_signals_are_not_ours():
    code = "import signal; signal.signal(signal.SIGUSR1, lambda *_: None)\n" + BLOCKED
    process = start(code.format(grace=0.2, blocked="time.sleep(1)"))
    process.stdout.readline()
    for _ in range(3):
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)
    assert end(process) == (0, "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_was_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)  # as nohup has it
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), number)
            assert not interrupts.pending()
            with handlers_kept(lambda *_: pytest.fail("handled")):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
