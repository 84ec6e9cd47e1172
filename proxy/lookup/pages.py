"""The Pages that are served, by their names and by the accounts they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.coordination.gate_facts import GateFacts, read_facts
from proxy.domain.profile import DEFAULT_PAGE, Igsid
from proxy.lookup.invalidation import What, on_message_received
from proxy.lookup.lookup import Flushed, ProfileLookup


class UnknownPage(Exception):
    """There is no Page of that name; None: none was named, and there is no default."""

    code = "unknown_page"

    def __init__(self, name: str | None) -> None:
        super().__init__(
            "There is no default Page here: name one, as in /pages/<page>/, or --page."
            if name in (None, DEFAULT_PAGE)
            else "There is no such Page here: check its name, which PROXY_PAGES_FILE"
            " gives it."
        )


@dataclass(frozen=True, slots=True)
class Named:
    """The Pages that have a name, and the Page that each account belongs to."""

    lookups: Mapping[str, ProfileLookup] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=dict)


NONE_NAMED = Named()


class Pages:
    """The Pages that are served at the moment: *named* ones can come and go."""

    def __init__(
        self,
        default: ProfileLookup | None,
        named: Callable[[], Named] = lambda: NONE_NAMED,
    ) -> None:
        """At least one Page exists at any time, whatever *named* returns then."""
        self.default = default
        self._named = named

    def get(self, name: str | None) -> ProfileLookup | None:
        """The Page called *name*, if there is one; None means the default Page."""
        if name is None or name == DEFAULT_PAGE:
            return self.default
        return self._named().lookups.get(name)

    def find(self, name: str | None) -> ProfileLookup:
        """The Page called *name*; None means the default Page.

        Raises:
            UnknownPage: there is none.
        """
        lookup = self.get(name)
        if lookup is None:
            raise UnknownPage(name)
        return lookup

    def all(self) -> dict[str, ProfileLookup]:
        """Every Page by its name."""
        default = {DEFAULT_PAGE: self.default} if self.default else {}
        return default | dict(self._named().lookups)

    @property
    def any(self) -> ProfileLookup:
        """One of the Pages, to ask about the store that they share."""
        return next(iter(self.all().values()))

    def gate_facts(self) -> dict[str, GateFacts]:
        """What has closed each Page's gate, by name, in one trip to each node.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        gates = {name: page.gate_keys() for name, page in self.all().items()}
        keys, _ = next(iter(gates.values()))
        facts = read_facts(keys.nodes, self.any.store.guard, [*gates.values()])
        return dict(zip(gates, facts, strict=True))

    def of_account(self, account: str | None) -> str | None:
        """The Page of an account: the one that lists it, otherwise the default Page."""
        name = self._named().accounts.get(account or "", DEFAULT_PAGE)
        return name if self.get(name) else None

    def is_account_of(self, page: str, id_: str) -> bool:
        """Whether *id_* is one of the accounts that *page* lists."""
        return self._named().accounts.get(id_) == page

    def flush(
        self,
        what: What,
        *,
        page: str | None,
        older_than: float | None = None,
        dry_run: bool = False,
    ) -> Flushed:
        """Flush one Page's entries; or with None those of all Pages, former ones too.

        Raises:
            UnknownPage: there is no such Page, so nothing was dropped.
            StoreUnavailable: some of them may still be there.
        """
        lookup = self.any if page is None else self.find(page)
        every = page is None
        return lookup.flush(
            what, older_than=older_than, dry_run=dry_run, every_page=every
        )

    def on_message_received(
        self, people: Mapping[str, Sequence[Igsid]], *, prefetch: bool = False
    ) -> None:
        """Drop the refusals of *people*, by the Page that they wrote to.

        People who wrote to a Page that has gone meanwhile are ignored.

        Raises:
            StoreUnavailable: it cannot be promised that anything is dropped.
            Overloaded: too many callers wait already; this one would for half a second.
        """
        senders = [
            (lookup.invalidation, senders_of_page)
            for page, senders_of_page in people.items()
            if (lookup := self.get(page))
        ]
        on_message_received(senders, prefetch=prefetch)
