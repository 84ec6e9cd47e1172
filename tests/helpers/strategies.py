"""Strategies of hypothesis for our types: any value that can be stored."""

from __future__ import annotations

from hypothesis import strategies as st

from proxy.domain.profile import Igsid, Profile

texts = st.none() | st.text(max_size=40)
flags = st.none() | st.booleans()
moments = st.floats(0, 1e11, exclude_max=True) | st.integers(0, 2**35).map(float)
igsids = st.from_regex(r"[0-9]{5,25}", fullmatch=True).map(Igsid)
profiles = st.builds(
    Profile,
    igsids,
    texts,
    texts,
    texts,
    flags,
    st.none() | st.integers(0, 2**53),
    flags,
    flags,
    st.none() | moments,
)
