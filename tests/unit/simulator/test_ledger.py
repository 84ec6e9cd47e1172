"""The ledger: what is counted, and what is remembered."""

from proxy.simulator.ledger import MOST_CALLS, Ledger, Record

NOW = 1_795_000_000.0
ADA, BEN = "1254001000000001", "1254001000000002"


def a_record(igsid: str = ADA, at: float = NOW) -> Record:
    return Record(igsid, f"/v25.0/{igsid}", ["name"], "bearer", False, at)


def test_calls_are_counted_by_person() -> None:
    """And each knows which one it is."""
    ledger = Ledger()

    places = [ledger.arrive(a_record(igsid)).nth for igsid in (ADA, BEN, ADA)]

    assert places == [1, 1, 2]
    assert (ledger.total(), ledger.total(ADA), ledger.total("1")) == (3, 2, 0)


def test_only_the_last_calls_are_remembered() -> None:
    """The count goes on."""
    ledger = Ledger()
    for number in range(MOST_CALLS + 5):
        ledger.arrive(a_record(str(number)))

    overview = ledger.overview()

    calls = overview["calls"]
    assert isinstance(calls, list) and len(calls) == MOST_CALLS
    assert calls[0]["igsid"] == "5" and overview["total"] == MOST_CALLS + 5


def test_a_call_runs_until_it_leaves() -> None:
    """Leaving twice is leaving once."""
    ledger = Ledger()
    record = ledger.arrive(a_record()).record
    running = ledger.overview()["running"]

    ledger.leave(record, 200)
    ledger.leave(record, 200)

    assert (running, ledger.overview()["running"], record.status) == (1, 0, 200)


def test_a_wait_is_over_when_the_calls_have_come() -> None:
    """With none missing it does not wait at all; with one it says so."""
    ledger = Ledger()
    ledger.arrive(a_record())

    assert ledger.wait(ADA, 1, 0.0) == (True, 1)
    assert ledger.wait(None, 2, 0.0) == (False, 1)


def test_usage_starts_anew_with_each_hour() -> None:
    """The quota is of an hour."""
    ledger = Ledger()
    hour = 3600.0 * 1000

    counts = [
        ledger.arrive(a_record(at=at)).this_hour
        for at in (hour, hour + 3599, hour + 3600)
    ]

    assert counts == [1, 2, 1]


def test_a_reset_forgets_the_calls_but_not_who_is_running() -> None:
    """A call in progress is in progress, whatever is forgotten."""
    ledger = Ledger()
    ledger.arrive(a_record())

    ledger.reset()

    assert ledger.total(ADA) == 0 and ledger.overview()["running"] == 1
