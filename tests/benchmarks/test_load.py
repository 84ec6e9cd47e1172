"""The load counts only valid answers, and fails on others."""

import pytest

from benchmarks.children import Failed, Missing, find
from benchmarks.load import check_status, head, hits, is_complete
from benchmarks.wrk import DRAWS, read, zipf

HIT = b"HTTP/1.1 200 OK\r\nCache-Status: profile-proxy; hit; ttl=9\r\n\r\n"
MISS = b"HTTP/1.1 200 OK\r\ncache-status: profile-proxy; fwd=uri-miss; stored\r\n\r\n"


def test_wrk_rate_is_answers_a_second() -> None:
    assert read("2 threads\nMEASURED 3000 1500000 0 0 0 0\n") == 2000.0


@pytest.mark.parametrize(
    "output",
    [
        "MEASURED 3000 1500000 1 503 0 0",
        "MEASURED 3000 1500000 0 0 1 0",
        "MEASURED 3000 1500000 0 0 0 1",
        "MEASURED 0 1500000 0 0 0 0",
        "unable to connect to 127.0.0.1:9 Connection refused",
    ],
)
def test_round_of_wrk_fails_on_one_wrong_answer(output: str) -> None:
    """A contender that refuses requests must not look fast."""
    with pytest.raises(Failed):
        read(output)


def test_missing_program_is_reported_with_its_install_command() -> None:
    """The table shows that in place of figures."""
    with pytest.raises(Missing, match=r"^not installed \(apt-get install no-such\)$"):
        find("no-such-program", "apt-get install no-such")


def test_zipf_has_the_first_twice_as_often_as_the_second() -> None:
    order = zipf([str(number) for number in range(1000)], seed=1)

    assert len(order) == DRAWS
    assert order.count("0") / order.count("1") == pytest.approx(2, rel=0.1)
    assert order.count("0") / order.count("9") == pytest.approx(10, rel=0.1)


def test_every_request_has_the_api_key() -> None:
    """Also to contenders that do not check it."""
    request = head("GET", "/profiles/1")

    assert request.startswith(b"GET /profiles/1 HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer pp_" in request
    assert is_complete(bytearray(request)) is False
    assert request.endswith(b"\r\n\r\n")


def test_miss_in_a_stream_of_hits_fails_or_is_not_counted() -> None:
    strict, lenient = (
        hits(1, ["/profiles/1"], rate=1.0, only=only) for only in (True, False)
    )

    assert strict.counts(bytearray(HIT)) and lenient.counts(bytearray(HIT))
    assert not lenient.counts(bytearray(MISS))
    with pytest.raises(Failed):
        strict.counts(bytearray(MISS))


def test_error_is_never_a_hit() -> None:
    with pytest.raises(Failed):
        check_status(bytearray(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), 200)
