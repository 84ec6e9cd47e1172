"""The service can read the entries that the benchmarks write."""

from benchmarks.stored import alike, entries, key
from proxy.domain.profile import Igsid, Profile
from proxy.storage.codec import decode

BEA, CAL = "1254002000000001", "1254002000000002"


def test_entries_have_their_own_key_and_profile() -> None:
    (_, bea), (cals_key, cal) = entries([BEA, CAL])

    read = decode(cal, Igsid(CAL))

    assert cals_key == key(CAL) == "pp:e:{default:1254002000000002}"
    assert bea != cal
    assert read and isinstance(read.outcome, Profile)
    assert read.outcome.name and read.outcome.profile_pic
    assert read.outcome.picture_expires_at
    assert read.fetched_at < read.fresh_until < read.usable_until


def test_alike_entries_have_their_own_id_and_the_same_size() -> None:
    (_, bea), (cals_key, cal) = alike([BEA, CAL])

    read = decode(cal, Igsid(CAL))

    assert cals_key == key(CAL)
    assert read and read.outcome.igsid == CAL
    assert len(cal) == len(bea)
