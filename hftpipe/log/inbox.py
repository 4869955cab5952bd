"""The inbox on Redis Streams: any client adds an entry with a plain XADD, and validators take it from there.

What is done is trimmed away, so the stream itself says what is not. The consumer group hands out what is new and
shows who has it; that nothing was passed over is seen by the stream's first entry.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import redis

from hftpipe.core.entry import EntryId
from hftpipe.errors import LogForeign, LogUnavailable
from hftpipe.log.keys import INBOX_GROUP, Keys
from hftpipe.log.redis import Connect, Connected
from hftpipe.ports import Attached, InboxEntry, Rejection

_CLAIM_PAGE: Final = 1_000
_SEQUENCE_MAX: Final = 2**64 - 1
_END: Final = EntryId(_SEQUENCE_MAX, _SEQUENCE_MAX)
_LOOKS_MAX: Final = 3
"""A read looks so often for entries that others keep away from it."""
_RECENT_REPORTS: Final = 10_000
"""Reports that are looked through for one that was made before; far more than validators have in hand."""
_RAW: Final = ("XREADGROUP", "XRANGE", "XREVRANGE", "XAUTOCLAIM")
"""Commands whose replies are taken as they come: the library would fold repeated names into one."""


_NEVER: Final = -1
"""What PTTL says of a key that does not run out."""


class RedisInbox(Connected):
    """See `ports.Inbox`.

    owner: a name that no other process has. lease_ms: how long it is the owner after it last said so.
    reports_max: how many reports of invalid entries stay.
    """

    def __init__(
        self,
        connect: Connect,
        keys: Keys,
        owner: str,
        *,
        lease_ms: int,
        reports_max: int,
    ) -> None:
        super().__init__(lambda: _raw(connect()), keys)
        self._prefix = keys.prefix
        self._key = keys.inbox
        self._owner_key = keys.inbox_owner
        self._reports_key = keys.invalid
        self._owner = owner.encode()
        self._consumer = owner.replace(" ", "-")
        self._lease_ms = lease_ms
        self._reports_max = reports_max
        self._behind: EntryId | None = None
        self._role = ""

    # --- lease -------------------------------------------------------------------------------------------------

    def own(self) -> bool:
        with self._on(self._owner_key) as client:
            held = client.get(self._owner_key)
            if held is None:
                return bool(client.set(self._owner_key, self._owner, nx=True, px=self._lease_ms))
            if client.pttl(self._owner_key) == _NEVER:
                client.pexpire(
                    self._owner_key, self._lease_ms
                )  # not a lease of ours: nobody would ever renew it
            # PEXPIRE is let through by a full server, SET is not.
            return held == self._owner and bool(client.pexpire(self._owner_key, self._lease_ms))

    def release(self) -> None:
        with self._on(self._owner_key) as client:
            if client.get(self._owner_key) == self._owner:
                client.delete(self._owner_key)

    def announce(self, role: str) -> None:
        with self._translated() as client:
            if role != self._role:
                client.client_setname(f"{self._prefix}:{role}:inbox")
                self._role = role

    def close(self) -> None:
        self._role = ""
        super().close()

    # --- reading -----------------------------------------------------------------------------------------------

    def attach(self, floor: EntryId) -> Attached:
        with self._on(self._key) as client:
            delivered, is_anew = self._group_at(client, floor)
            removed = self._claim_all(client)
            for consumer in client.xinfo_consumers(self._key, INBOX_GROUP):
                if consumer["name"] != self._consumer.encode() and consumer["pending"] == 0:
                    client.xgroup_delconsumer(self._key, INBOX_GROUP, consumer["name"])
        self._behind = delivered
        return Attached(removed, is_anew)

    def read(self, count: int, wait_ms: int, done: Sequence[InboxEntry]) -> list[InboxEntry]:
        with self._on(self._key) as client:
            for _ in range(_LOOKS_MAX):
                if self._behind is not None:
                    entries = self._earlier(client, self._behind, count, done)
                    if entries or not count:
                        return entries
                    self._behind, done = None, ()
                entries, first = self._new(client, count, wait_ms, done)
                if first is None or (entries and first == entries[0].id):
                    return entries
                # There are entries below what was handed out now: handed to another validator before, or passed over
                # where the group was set to another place. Or one has come this moment.
                self._behind, done = entries[-1].id if entries else _END, ()
        return []

    def is_empty(self) -> bool:
        with self._on(self._key) as client:
            return not client.xlen(self._key)

    def _new(
        self, client: "redis.Redis", count: int, wait_ms: int, done: Sequence[InboxEntry]
    ) -> tuple[list[InboxEntry], EntryId | None]:
        """What the group hands out next; and the stream's first entry then: all below it is done."""
        with client.pipeline(transaction=False) as pipeline:
            self._remove(pipeline, done)
            if not count:
                _replies(pipeline)
                return [], None
            block = wait_ms or None  # BLOCK 0 would wait for ever
            pipeline.xreadgroup(INBOX_GROUP, self._consumer, {self._key: ">"}, count=count, block=block)
            pipeline.xrange(self._key, count=1)
            *_, handed, first = _replies(pipeline)
        entries = _entries(handed[0][1]) if handed else []
        return entries, EntryId.parse(first[0][0]) if first else None

    def _earlier(
        self, client: "redis.Redis", last: EntryId, count: int, done: Sequence[InboxEntry]
    ) -> list[InboxEntry]:
        """The lowest entries of those handed out before, to whomever."""
        with client.pipeline(transaction=False) as pipeline:
            self._remove(pipeline, done)
            if count:
                pipeline.xrange(self._key, max=str(last), count=count)
            replies = _replies(pipeline)
        return _entries(replies[-1]) if count else []

    def _remove(self, pipeline: Any, done: Sequence[InboxEntry]) -> None:
        if not done:
            return
        pipeline.xack(self._key, INBOX_GROUP, *(str(entry.id) for entry in done))
        last = done[-1].id
        if last.sequence < _SEQUENCE_MAX:
            pipeline.xtrim(self._key, minid=str(last.moved(1)), approximate=False)
        else:
            pipeline.xtrim(self._key, minid=str(last), approximate=False)
            pipeline.xdel(self._key, str(last))

    def _group_at(self, client: "redis.Redis", floor: EntryId) -> tuple[EntryId, bool]:
        """Makes what is missing; the last id that the group has handed out, and whether the inbox was begun anew."""
        delivered = _delivered(client, self._key)
        if delivered is None:
            client.xgroup_create(self._key, INBOX_GROUP, "0", mkstream=True)
            delivered = EntryId(0, 0)
        last = EntryId.parse(client.xinfo_stream(self._key)["last-generated-id"])
        if last < floor:
            # It was removed and begun anew, with a clock behind: its next ids would count as applied before.
            client.execute_command("XSETID", self._key, str(floor))  # type: ignore[no-untyped-call]  # redis-py leaves it so
        if delivered > max(last, floor):
            client.xgroup_setid(self._key, INBOX_GROUP, "0")  # what is added from now on would hide behind it
            return last, last < floor
        return delivered, last < floor

    def _claim_all(self, client: "redis.Redis") -> int:
        """Shows all that is pending as this validator's; how many entries of it are no longer there."""
        start, removed = b"0-0", 0
        while True:
            start, _, gone = client.xautoclaim(
                self._key, INBOX_GROUP, self._consumer, 0, start_id=start, count=_CLAIM_PAGE, justid=True
            )
            removed += len(gone)
            if start == b"0-0":
                return removed

    # --- reports -----------------------------------------------------------------------------------------------

    def reject(self, rejections: Sequence[Rejection]) -> None:
        own = [(str(rejection.id), rejection) for rejection in rejections if rejection.keeps_id]
        with self._on(self._reports_key) as client:
            refused = self._report(client, own)
            unsure = [*refused, *(rejection for rejection in rejections if not rejection.keeps_id)]
            if unsure:
                self._settle(client, unsure)

    def _report(self, client: "redis.Redis", reports: Sequence[tuple[str, Rejection]]) -> list[Rejection]:
        """Adds reports under ids; returns those whose ids are refused as not above the newest. Raises other faults."""
        with client.pipeline(transaction=False) as pipeline:
            for report_id, rejection in reports:
                pipeline.xadd(
                    self._reports_key,
                    {
                        "id": str(rejection.id),
                        "field": rejection.field,
                        "reason": rejection.reason,
                        "entry": rejection.content,
                    },
                    id=report_id,
                    maxlen=self._reports_max,
                    approximate=False,
                )
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        refused: list[Rejection] = []
        for (_, rejection), reply in zip(reports, replies, strict=True):
            if isinstance(reply, redis.ResponseError) and "equal or smaller" in str(reply):
                refused.append(rejection)
            elif isinstance(reply, redis.RedisError):
                raise reply
        return refused

    def _settle(self, client: "redis.Redis", unsure: Sequence[Rejection]) -> None:
        """Reports, under ids that are free, what was not reported before.

        An id is refused when its entry was reported; but also when an attempt failed, and a later one of the same
        pipeline did not. An entry that is done was reported; of another, a report is looked for.
        """
        with client.pipeline(transaction=False) as pipeline:
            for rejection in unsure:
                pipeline.xrange(self._key, str(rejection.id), str(rejection.id))
            found = _replies(pipeline)
        recent: Any = client.xrevrange(self._reports_key, count=_RECENT_REPORTS)
        told = {fields[1] for _, fields in recent}
        missing = [
            rejection
            for rejection, waiting in zip(unsure, found, strict=True)
            if waiting and str(rejection.id).encode() not in told
        ]
        # Right above the newest: the ids of entries that are still to be reported stay free.
        free = f"{EntryId.parse(recent[0][0]).generation if recent else 0}-*"
        if self._report(client, [(free, rejection) for rejection in missing]):
            raise LogUnavailable(f"another validator reports to {self._reports_key}")

    @contextmanager
    def _on(self, key: str) -> Iterator["redis.Redis"]:
        try:
            with self._translated() as client:
                yield client
        except LogForeign as error:
            raise LogForeign(
                f"{key} cannot be used: {error}. Rename or remove that key, or use another --prefix"
            ) from error


def _raw(client: "redis.Redis") -> "redis.Redis":
    for command in _RAW:
        client.set_response_callback(command, lambda reply, **_: reply)
    return client


def _replies(pipeline: Any) -> list[Any]:
    """The replies of a pipeline. Raises the first error: the library's own would repeat the whole command."""
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, redis.RedisError):
            raise reply
    return replies


def _delivered(client: "redis.Redis", key: str) -> EntryId | None:
    """The last id that the group has handed out; None when there is no group."""
    groups: list[dict[str, Any]] = client.xinfo_groups(key) if client.exists(key) else []
    named = (group for group in groups if group["name"] == INBOX_GROUP.encode())
    return next((EntryId.parse(group["last-delivered-id"]) for group in named), None)


def _entries(replies: Any) -> list[InboxEntry]:
    return [InboxEntry(_id(entry_id), fields) for entry_id, fields in replies]


def _id(text: bytes) -> EntryId:
    """As `EntryId.parse`, sooner: the server's own ids need no proof."""
    milliseconds, _, sequence = text.partition(b"-")
    return EntryId(int(milliseconds), int(sequence))


@dataclass(frozen=True, slots=True)
class InboxStatus:
    """How an inbox stands. waiting: entries not done; pending: those of them that a validator has in hand.

    invalid: entries that were ever reported. owner: empty when none validates. standbys: validators that wait.
    """

    waiting: int
    pending: int
    invalid: int
    owner: str
    standbys: int


def inspect_inbox(client: "redis.Redis", keys: Keys) -> InboxStatus | None:
    """How the inbox stands; None when there never was an entry nor a validator."""
    owner: Any = client.get(keys.inbox_owner)
    if owner is None and not client.exists(keys.inbox):
        return None
    groups: list[dict[str, Any]] = client.xinfo_groups(keys.inbox) if client.exists(keys.inbox) else []
    reports: dict[str, Any] = client.xinfo_stream(keys.invalid) if client.exists(keys.invalid) else {}
    role = f"{keys.prefix}:standby:inbox"
    return InboxStatus(
        client.xlen(keys.inbox),
        sum(group["pending"] for group in groups if group["name"] == INBOX_GROUP.encode()),
        reports.get("entries-added", 0),
        owner.decode(errors="replace") if owner is not None else "",
        sum(other["name"] == role for other in client.client_list()),
    )
