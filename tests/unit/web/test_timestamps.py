"""Timestamps: the same text as datetime makes."""

from __future__ import annotations

from datetime import UTC, datetime
from math import floor

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.web.timestamps import _date, format_timestamp
from tests.helpers.builders import NOW


@settings(deadline=None)
@given(
    st.floats(0, 1e11, exclude_max=True)
    | st.floats(-1e9, 1e10)
    | st.integers(0, 2**35).map(float)
)
@example(951_782_400.0 - 0.5)  # The last second before a leap day.
@example(951_782_400.0 + 86_399.9)
def test_timestamp_equals_that_of_datetime(seconds: float) -> None:
    """In UTC, and rounded down to whole seconds."""
    day = datetime.fromtimestamp(floor(seconds), UTC)

    assert format_timestamp(seconds) == day.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_date_cache_is_bounded() -> None:
    """A picture link can claim any expiry date."""
    for day in range(100):
        format_timestamp(NOW + day * 86400)

    assert _date.cache_info().currsize <= 64
