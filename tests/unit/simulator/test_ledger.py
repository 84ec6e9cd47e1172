"""The ledger: its counts and its records."""

from proxy.simulator.ledger import MAX_CALLS, Ledger, Record

NOW = 1_795_000_000.0
ADA, BEN = "1254001000000001", "1254001000000002"


def a_record(igsid: str = ADA, at: float = NOW) -> Record:
    return Record(igsid, f"/v25.0/{igsid}", ["name"], "bearer", False, at)


def test_calls_are_counted_by_person() -> None:
    """And each gets its number."""
    ledger = Ledger()

    numbers = [ledger.arrive(a_record(igsid)).nth for igsid in (ADA, BEN, ADA)]

    assert numbers == [1, 1, 2]
    assert (ledger.total(), ledger.total(ADA), ledger.total("1")) == (3, 2, 0)


def test_ledger_keeps_only_the_last_calls() -> None:
    """The count goes on after that."""
    ledger = Ledger()
    for number in range(MAX_CALLS + 5):
        ledger.arrive(a_record(str(number)))

    overview = ledger.overview()

    calls = overview["calls"]
    assert isinstance(calls, list) and len(calls) == MAX_CALLS
    assert calls[0]["igsid"] == "5" and overview["total"] == MAX_CALLS + 5


def test_call_runs_until_it_is_finished() -> None:
    """It may be finished twice."""
    ledger = Ledger()
    record = ledger.arrive(a_record()).record
    running = ledger.overview()["running"]

    ledger.finish(record, 200)
    ledger.finish(record, 200)

    assert (running, ledger.overview()["running"], record.status) == (1, 0, 200)


def test_wait_ends_when_the_calls_have_arrived() -> None:
    """With none missing it returns at once; with one missing it reports that."""
    ledger = Ledger()
    ledger.arrive(a_record())

    assert ledger.wait(ADA, 1, 0.0) == (True, 1)
    assert ledger.wait(None, 2, 0.0) == (False, 1)


def test_usage_starts_again_with_each_hour() -> None:
    """The quota is per hour."""
    ledger = Ledger()
    hour = 3600.0 * 1000

    counts = [
        ledger.arrive(a_record(at=at)).this_hour
        for at in (hour, hour + 3599, hour + 3600)
    ]

    assert counts == [1, 2, 1]


def test_reset_deletes_records_but_not_calls_in_progress() -> None:
    """A call in progress stays in progress, whatever is deleted."""
    ledger = Ledger()
    ledger.arrive(a_record())

    ledger.reset()

    assert ledger.total(ADA) == 0 and ledger.overview()["running"] == 1
