"""A small budget of the fuzz targets, so that they stay runnable; `make fuzz` has the time to find more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.seeds import WORDS, seeds
from fuzz.targets import TARGETS
from tap_braze_export.http.certificates import OVER_BOTO, OVER_REQUESTS
from tests.support.night import NIGHT, by_day

EXAMPLES = by_day(15)
_MAX_INSERTED_BYTES = 12


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read all certificates of a machine takes longer than a target."""
    for variable in {*OVER_REQUESTS, *OVER_BOTO}:
        monkeypatch.delenv(variable, raising=False)


@st.composite
def mutations(draw: st.DrawFn, target: str) -> bytes:
    """Draw a seed of a target in which some bytes are replaced, doubled or cut off."""
    data = draw(st.sampled_from(seeds(target)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + _MAX_INSERTED_BYTES)))
        inserted = st.sampled_from(WORDS[target]) | st.binary(max_size=_MAX_INSERTED_BYTES) | st.just(data[:start])
        data = data[:start] + draw(inserted) + data[end:]
    return data


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_read_or_refused_with_one_line(target: str) -> None:
    """Whatever a target starts from ends in rows, or in an error of the documented kinds."""
    assert seeds(target)
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_mutated_seeds_are_read_or_refused_with_one_line(target: str) -> None:
    """The same for seeds with damage."""

    @settings(
        derandomize=not NIGHT,
        database=None,
        deadline=None,
        max_examples=EXAMPLES,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(mutations(target))
    def run(data: bytes) -> None:
        TARGETS[target](data)

    run()
