"""The people of the simulator, each with a peculiarity."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxy.simulator import errors
from proxy.simulator.errors import GraphError

FIELDS = (
    "id",
    "name",
    "username",
    "profile_pic",
    "is_verified_user",
    "follower_count",
    "is_user_follow_business",
    "is_business_follow_user",
)
CROWD = "1254002"
MAX_PAGES = 10
PICTURE_LIFE = 4.5 * 86400.0


@dataclass(frozen=True, slots=True)
class Person:
    """A person who has written to the business.

    ``profile`` holds the fields that are set: ``None`` is sent as null, and a
    missing field is missing in the reply, because Meta does both. It never holds
    the picture: ``picture_life`` is the life of the first one in seconds, None for
    no picture. A refused person has a profile too, which a script can reveal.
    """

    igsid: str
    first_name: str
    description: str
    profile: Mapping[str, object] = field(repr=False)
    refusal: GraphError | None = None
    picture_life: float | None = PICTURE_LIFE
    answers_after: float = 0.0
    is_flaky: bool = False


def _profile(name: str | None, username: str, followers: int) -> dict[str, object]:
    return {
        "name": name,
        "username": username,
        "is_verified_user": False,
        "follower_count": followers,
        "is_user_follow_business": True,
        "is_business_follow_user": False,
    }


HIDDEN = errors.no_such_object("")
"""The refusal for people that Meta hides; its message has their id."""

# A blossom, a family of four joined by ZWJ, Hebrew, a right-to-left mark and Arabic.
_EVE = (
    "Eve \U0001f338 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 "
    "\u05d7\u05d5\u05d4\u200f \u062d\u0648\u0627\u0621"
)

CAST: Mapping[str, Person] = {
    person.igsid: person
    for person in (
        Person(
            "1254001000000001",
            "Ada",
            "consents, everything set, verified",
            _profile("Ada Lovelace", "ada.lovelace", 181512)
            | {"is_verified_user": True, "is_business_follow_user": True},
        ),
        Person(
            "1254001000000002",
            "Ben",
            "consent missing: 403, code 230",
            _profile("Ben Okri", "ben.okri", 12),
            refusal=errors.CONSENT_REQUIRED,
        ),
        Person(
            "1254001000000003",
            "Cleo",
            "gone: 400, code 9010",
            _profile("Cleo Lane", "cleo.lane", 87),
            refusal=errors.NO_MATCHING_USER,
        ),
        Person(
            "1254001000000004",
            "Dov",
            "has blocked the business: 400, code 551",
            _profile("Dov Levin", "dov.levin", 301),
            refusal=errors.BLOCKED,
        ),
        Person(
            "1254001000000005",
            "Eve",
            "emoji and right-to-left letters in the name",
            _profile(_EVE, "eve.blossoms", 4096),
        ),
        Person(
            "1254001000000006",
            "Finn",
            "no picture, no name, some fields absent",
            {
                "name": None,
                "username": "finn",
                "profile_pic": None,
                "is_user_follow_business": False,
            },
            picture_life=None,
        ),
        Person(
            "1254001000000007",
            "Gus",
            "a picture that dies 90 s after he is first described",
            _profile("Gus Hart", "gus.hart", 55),
            picture_life=90.0,
        ),
        Person(
            "1254001000000008",
            "Hana",
            "slow: 2 s",
            _profile("Hana Mori", "hana.mori", 640),
            answers_after=2.0,
        ),
        Person(
            "1254001000000009",
            "Ivo",
            "flaky: the first, third, ... call gets 503, code 2",
            _profile("Ivo Grgic", "ivo.grgic", 9),
            is_flaky=True,
        ),
        Person(
            "1254001000000010",
            "Jo",
            "not visible: 400, code 100, subcode 33",
            _profile("Jo March", "jo.march", 1868),
            refusal=HIDDEN,
        ),
        Person(
            "1254001000000011",
            "Kim",
            "no such user: 400, code 100, subcode 2018001",
            _profile("Kim Novak", "kim.novak", 31),
            refusal=errors.NO_MATCHING_USER_FOUND,
        ),
        Person(
            "1254001000000012",
            "Lev",
            "no profile: 400, code 2018218",
            _profile("Lev Yashin", "lev.yashin", 270),
            refusal=errors.NO_PROFILE_AVAILABLE,
        ),
        Person(
            "1254001000000013",
            "Mia",
            "odd values: a count below zero, a flag as text, a picture that is no link",
            _profile("Mia Farrow", "mia.farrow", -1)
            | {"is_verified_user": "no", "profile_pic": "no link"},
            picture_life=None,
        ),
    )
}

_FIRST_NAMES = (
    "Amara Bruno Carla Deniz Elena Farid Greta Hugo Ines Jonas Keiko Lars Maya Nils "
    "Olga Pablo Rosa Sami Tove Umar Vera Wim Ximena Yusuf Zoe"
).split()
_LAST_NAMES = (
    "Adler Brandt Costa Dubois Eriksen Ferrari Garcia Horvat Ito Jansen Kowalski "
    "Larsen Moreau Novak Okafor Petrov Quist Rossi Silva Tanaka Ueda Vidal Weber"
).split()


def prefix(number: int) -> str:
    """Return the prefix of the ids of people of the Page with that *number*."""
    return f"1254{number}"


def id_at(number: int, igsid: str) -> str:
    """Return the id at the Page with that *number* of a person of the first Page.

    Meta gives a person another id for each business that they write to.
    """
    return prefix(number) + igsid[len(prefix(0)) :]


def find(igsid: str, number: int = 0) -> Person | None:
    """Return the person with that *igsid* at a Page: of the cast or crowd, or None."""
    if not igsid.startswith(prefix(number)):
        return None
    first = id_at(0, igsid)
    if first in CAST:
        return replace(CAST[first], igsid=igsid)
    return generate(igsid) if first.startswith(CROWD) else None


def generate(igsid: str) -> Person:
    """Return a consenting person made from the digits of *igsid*, always the same."""
    if igsid in CAST:
        return CAST[igsid]
    dice = hashlib.sha256(igsid.encode()).digest()
    first = _FIRST_NAMES[dice[0] % len(_FIRST_NAMES)]
    last = _LAST_NAMES[dice[1] % len(_LAST_NAMES)]
    username = f"{first}.{last}{igsid[-4:]}".lower()
    followers = int.from_bytes(dice[2:4]) % 5000
    profile = _profile(f"{first} {last}", username, followers)
    return Person(igsid, first, "one of the crowd", profile)


def is_id_like(text: str) -> bool:
    """Return whether Meta would read *text* as an id, and not as an alias."""
    return len(text) >= 10 and text.isascii() and text.isdigit()
