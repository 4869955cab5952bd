"""Where the validation service, and what looks at the inbox, are put together."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from random import Random

from hftpipe.backoff import Backoff
from hftpipe.clock import SystemClock
from hftpipe.config import ConnectionLimits, IngestLimits, ValidateLimits
from hftpipe.errors import HftpipeError
from hftpipe.inbox import Bench, Lease, TendingClock, ValidationService, source_of
from hftpipe.log.connection import translated
from hftpipe.log.inbox import InboxStatus, RedisInbox, inspect_inbox
from hftpipe.owner import describe, new_owner
from hftpipe.producer import Surroundings
from hftpipe.validation import Rounding
from hftpipe.validation.columnar_entries import ColumnarEntryValidator
from hftpipe.validation.entries import EntryValidator
from hftpipe.wiring.pipeline import Pipeline, Place


@contextmanager
def validation_service(
    pipeline: Pipeline,
    rounding: Rounding,
    *,
    stop: threading.Event,
    report: Callable[[str], None],
    reach: Callable[[str], None],
    limits: ValidateLimits,
    until_idle: bool,
) -> Iterator[ValidationService]:
    """The validation service of one process, for one thread."""
    place, retry = pipeline.place, IngestLimits()
    # A silent server must not keep the owner from renewing its lease.
    reply_ms = min(ConnectionLimits().reply_ms, limits.lease_ms // 2)
    connect = place.reconnector("inbox", limits.read_wait_ms, reply_ms)
    inbox = RedisInbox(
        connect,
        place.keys,
        new_owner(),
        lease_ms=limits.lease_ms,
        reports_max=limits.invalid_entries_max,
    )
    lease = Lease(inbox, SystemClock(stop), limits.lease_ms)
    clock = TendingClock(SystemClock(stop), lease)
    with closing(inbox):
        yield ValidationService(
            Bench(
                inbox=inbox,
                lease=lease,
                producer=pipeline.producer(
                    source_of(place.prefix),
                    Surroundings(clock, Random(), stop.is_set, report, reach),
                    retry,
                    resumable=True,
                ),
                validator=ColumnarEntryValidator(EntryValidator(rounding=rounding)),
                clock=clock,
                backoff=Backoff(retry.retry_first_ms, retry.retry_max_ms, Random().random),
                stopping=stop.is_set,
                report=report,
                reach=reach,
            ),
            limits,
            until_idle=until_idle,
        )


def look_at_inbox(place: Place, report: Callable[[str], None]) -> InboxStatus | None:
    """How the inbox stands; None when there is none. Says why, and returns None, when it cannot be asked."""
    try:
        with closing(place.connector("status")()) as client, translated(place.endpoint()):
            found = inspect_inbox(client, place.keys)
    except HftpipeError as error:
        report(f"The inbox was not asked: {error}")
        return None
    return None if found is None else replace(found, owner=describe(found.owner))
