"""The retry policy: what is repeated, how long it waits, and when it gives up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.http.retry import GaveUpError, RetryableError, RetryPolicy
from tap_braze_export.http.threads import DaemonThreads
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

POLICY = RetryPolicy(max_tries=4, max_seconds=100)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def failing(*errors: Exception) -> Callable[[], str]:
    """A call that fails in these ways, then succeeds."""
    left = list(errors)

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


def test_success_is_returned_after_failures(clock: FakeClock) -> None:
    attempt = failing(RetryableError("odd"), RetryableError("odd"), RetryableError("odd"))

    assert POLICY.call(attempt, failed="It failed", clock=clock) == "done"
    assert [slept <= most for slept, most in zip(clock.slept, (1, 2, 4), strict=True)] == [True] * 3


def test_each_repetition_is_logged_once(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tap_braze_export")

    POLICY.call(failing(RetryableError("odd")), failed="It failed", clock=clock)

    assert [message.rpartition(" in ")[0] for message in caplog.messages] == ["It failed: odd; repeated"]


def test_repetitions_are_counted(clock: FakeClock) -> None:
    """Two of the first call, three of the second, which fails a fourth time for good."""
    POLICY.call(failing(*[RetryableError("odd")] * 2), failed="It failed", clock=clock)
    assert clock.retries == 2

    with pytest.raises(GaveUpError):
        POLICY.call(failing(*[RetryableError("odd")] * 4), failed="It failed", clock=clock)
    assert clock.retries == 5


def test_repetitions_of_threads_are_counted(clock: FakeClock) -> None:
    """On the clock of the run that they work for."""
    threads = DaemonThreads(2)
    calls = [failing(RetryableError("odd")) for _ in range(9)]
    for ended in [threads.submit(POLICY.call, call, failed="It failed", clock=clock) for call in calls]:
        ended.result()
    threads.shutdown()

    assert (clock.retries, FakeClock().retries) == (9, 0)


def test_other_errors_are_not_repeated(clock: FakeClock) -> None:
    with pytest.raises(KeyError):
        POLICY.call(failing(KeyError()), failed="It failed", clock=clock)
    assert clock.slept == []


def test_tries_are_limited(clock: FakeClock) -> None:
    with pytest.raises(GaveUpError) as caught:
        POLICY.call(
            failing(*(RetryableError(name) for name in ("first", "second", "third", "fourth"))),
            failed="It failed",
            clock=clock,
        )
    assert (caught.value.last.problem, caught.value.tries, caught.value.stopped) == ("fourth", 4, False)
    assert caught.value.seconds == pytest.approx(sum(clock.slept), abs=1e-3)


def test_time_is_limited() -> None:
    clock = FakeClock(tick=60)

    with pytest.raises(GaveUpError) as caught:
        POLICY.call(failing(*[RetryableError("odd")] * 9), failed="It failed", clock=clock)
    assert caught.value.tries == 2


def test_rate_limit_is_waited_for_and_is_no_failure(clock: FakeClock) -> None:
    limits = [RetryableError("rate limit", clock.elapsed + 1_000 * number) for number in range(1, 9)]

    assert POLICY.call(failing(*limits), failed="It failed", clock=clock) == "done"
    assert len(clock.slept) == 8


def test_end_of_the_run_ends_the_wait() -> None:
    """No further try, though the wait was cut short."""

    class StoppingClock(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            self.told_to_end = True

    clock = StoppingClock()
    with pytest.raises(GaveUpError) as caught:
        POLICY.call(failing(RetryableError("odd"), RetryableError("odd")), failed="It failed", clock=clock)
    assert (caught.value.tries, caught.value.stopped, len(clock.slept)) == (1, True, 1)
