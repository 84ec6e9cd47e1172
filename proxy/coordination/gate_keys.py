"""The keys of a Page's gate, all in one slot, and how a person is marked in them.

    pp:g:{page}:<cause>       one of the causes that close the gate (see `gate`)
    pp:d:{page}:witnesses     the people whom Meta showed last, by their igsid
    pp:d:{page}:not_shown     a row of different people with 100/33
    pp:d:{page}:refused       a row of people with a code about the app or the Page
    pp:d:{page}:failed        a row of people about whom Meta itself failed
    pp:d:{page}:success       a mark: Meta has looked for some person lately
    pp:d:{page}:verdict       whether the witnesses are shown, and when to ask again
    pp:d:{page}               the row with 100/33 of the version before, for a day
    pp:u:{page}  pp:c:{page}  the usage, and the counts of refreshes
    pp:t:{page}               the digest of the token used last

The rows have people by digest; a success ends them. An erase reaches all of these.
"""

from __future__ import annotations

import hashlib

from proxy.domain.failures import Cause
from proxy.domain.profile import Igsid
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.nodes import Nodes
from proxy.storage.token_digest import token_key


class GateKeys:
    """One Page's keys, each with the prefix of the store."""

    def __init__(self, cache: ProfileCache, page: str) -> None:
        self._cache = cache
        self._page = page
        self.usage = cache.whole_key(f"u:{{{page}}}")
        self.refreshes = cache.whole_key(f"c:{{{page}}}")
        self.token = cache.whole_key(token_key(page))
        self.witnesses = self._whole("witnesses")
        self.not_shown = self._whole("not_shown")
        self.refused = self._whole("refused")
        self.failed = self._whole("failed")
        self.success = self._whole("success")
        self.verdict = self._whole("verdict")

    @property
    def nodes(self) -> Nodes:
        """The nodes of the store."""
        return self._cache.nodes

    @property
    def node(self) -> str:
        """The name of the one node that holds them all."""
        return self._cache.node_name(token_key(self._page))

    def causes(self, token_digest: str) -> dict[Cause, str]:
        """Return the key of each cause, in the order of ``Cause``."""
        names = {
            cause: f"{cause}:{token_digest}"
            if cause is Cause.TOKEN_REJECTED
            else cause.value
            for cause in Cause
        }
        return {
            cause: self._cache.whole_key(f"g:{{{self._page}}}:{name}")
            for cause, name in names.items()
        }

    def behind(self, cause: Cause) -> list[str]:
        """Return the keys of what leads to *cause*, beside its own."""
        match cause:
            case Cause.PERMISSION:
                return [self.not_shown, self.refused, self.verdict]
            case Cause.UNAVAILABLE:
                return [self.failed]
            case Cause.THROTTLED | Cause.TOKEN_REJECTED:
                return []

    def about_people(self) -> list[str]:
        """Return the keys that may have a person in them, without the prefix."""
        names = ("witnesses", "not_shown", "refused", "failed")
        before = f"d:{{{self._page}}}"
        return [*map(self._unprefixed, names), before]

    def _whole(self, name: str) -> str:
        return self._cache.whole_key(self._unprefixed(name))

    def _unprefixed(self, name: str) -> str:
        return f"d:{{{self._page}}}:{name}"


def mark_of(igsid: Igsid) -> str:
    """Return the digest that stands for a person in a row."""
    return hashlib.sha256(igsid.encode()).hexdigest()[:16]
