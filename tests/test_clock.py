"""The alarm that follows a signal."""

from __future__ import annotations

import signal

from tap_braze_export.clock import Signals


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
