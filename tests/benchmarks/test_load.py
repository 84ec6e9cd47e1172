"""The load counts what it is meant to count, and fails on anything else."""

import pytest

from benchmarks.children import Failed, Missing, find
from benchmarks.load import check_status, head, hits, is_complete
from benchmarks.wrk import DRAWS, read, zipf

HIT = b"HTTP/1.1 200 OK\r\nCache-Status: profile-proxy; hit; ttl=9\r\n\r\n"
MISS = b"HTTP/1.1 200 OK\r\ncache-status: profile-proxy; fwd=uri-miss; stored\r\n\r\n"


def test_wrk_counts_what_was_answered_as_it_must_be() -> None:
    assert read("2 threads\nMEASURED 3000 1500000 0 0 0 0\n") == 2000.0


@pytest.mark.parametrize(
    "said",
    [
        "MEASURED 3000 1500000 1 503 0 0",
        "MEASURED 3000 1500000 0 0 1 0",
        "MEASURED 3000 1500000 0 0 0 1",
        "MEASURED 0 1500000 0 0 0 0",
        "unable to connect to 127.0.0.1:9 Connection refused",
    ],
)
def test_one_wrong_answer_makes_a_round_of_wrk_fail(said: str) -> None:
    """A contender that sheds its load must not look fast."""
    with pytest.raises(Failed):
        read(said)


def test_what_is_not_here_says_how_to_get_it() -> None:
    """The line of the table that has it instead of figures."""
    with pytest.raises(Missing, match=r"^not installed \(apt-get install no-such\)$"):
        find("no-such-program", "apt-get install no-such")


def test_zipf_asks_for_the_first_twice_as_often_as_for_the_second() -> None:
    order = zipf([str(number) for number in range(1000)], seed=1)

    assert len(order) == DRAWS
    assert order.count("0") / order.count("1") == pytest.approx(2, rel=0.1)
    assert order.count("0") / order.count("9") == pytest.approx(10, rel=0.1)


def test_every_request_bears_the_key() -> None:
    """The contenders that ask for none are sent it too."""
    request = head("GET", "/profiles/1")

    assert request.startswith(b"GET /profiles/1 HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer pp_" in request
    assert is_complete(bytearray(request)) is False
    assert request.endswith(b"\r\n\r\n")


def test_a_miss_fails_a_stream_of_hits_or_is_left_out() -> None:
    strict, lenient = (
        hits(1, ["/profiles/1"], rate=1.0, only=only) for only in (True, False)
    )

    assert strict.counts(bytearray(HIT)) and lenient.counts(bytearray(HIT))
    assert not lenient.counts(bytearray(MISS))
    with pytest.raises(Failed):
        strict.counts(bytearray(MISS))


def test_an_error_is_never_a_hit() -> None:
    with pytest.raises(Failed):
        check_status(bytearray(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), 200)
