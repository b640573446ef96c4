"""Times of day across runs on a clock that somebody sets, and the alarm that follows a signal."""

from __future__ import annotations

import signal

from tap_braze_export.clock import Signals
from tests.support.fakes import FakeClock

HOUR, YEAR = 3_600.0, 365 * 86_400.0


def test_nothing_grows_old_because_the_clock_is_set() -> None:
    """An age counts the seconds that passed, at most: whatever a setting does to it in a run, none is negative."""
    for jump in (-YEAR, -HOUR, -1.0, 0.0, 1.0, HOUR, YEAR):
        clock = FakeClock()
        before = clock.now() - 60  # as another run has written it
        clock.ahead = jump
        after = clock.now()  # as this one writes it
        clock.sleep(10)

        assert clock.age(before) == max(0, 70 + min(jump, 0)), jump
        assert clock.age(after) == (0 if jump > 10 else 10 - max(0, jump)), jump
        for moment in (before, after):
            assert clock.monotonic_at(moment) == clock.monotonic() - clock.age(moment), jump


def test_a_time_of_day_in_the_future_is_now() -> None:
    """A run whose clock was a year ahead has written it: what counts from it counts from now."""
    clock = FakeClock()
    for ahead in (1.0, HOUR, YEAR):
        assert clock.monotonic_at(clock.now() + ahead) == clock.monotonic()


def test_disarmed_alarm_does_not_fire() -> None:
    """While the interpreter ends, its handlers are gone: an alarm would replace the exit code by its own."""
    signals = Signals()
    old = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        signals.finish()
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        signals.disarm()
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, old)
