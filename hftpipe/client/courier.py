"""Carries a delivery over connections: connects, reconnects with growing waits, and gives up after a deadline."""

import select
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NoReturn

from hftpipe.backoff import Backoff
from hftpipe.client.delivery import Delivery
from hftpipe.client.errors import ClientError, NotOurServer, Rejected, ServerAway, Stopped
from hftpipe.client.limits import ClientLimits
from hftpipe.client.replies import BatchReceipt, Receipt
from hftpipe.client.wire import BadCertificate, Lost, Wire
from hftpipe.errors import UsageError


def silent(_: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a courier has around it.

    stop: set when it is to end; whatever waits then raises Stopped. report: takes a line for people when a
    connection is lost, and when there is one again.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    report: Callable[[str], None] = silent
    random: Random = field(default_factory=Random)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server listens; `tls` is the context that checks its certificate, None for plain TCP."""

    host: str
    port: int
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoint(address: str, tls: ssl.SSLContext | None = None) -> Endpoint:
    """`HOST:PORT` or `[::1]:PORT`. Raises UsageError."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not _is_port(port) or (host != bare) != (":" in bare):
        raise UsageError(f"{address!r} is no address of a server; write HOST:PORT, such as 127.0.0.1:7070")
    return Endpoint(bare, int(port), tls)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 1 << 16


class Courier:
    """One delivery, over one connection at a time."""

    def __init__(
        self, endpoint: Endpoint, delivery: Delivery, limits: ClientLimits, surroundings: Surroundings
    ) -> None:
        self.delivery = delivery
        self._endpoint = endpoint
        self._limits = limits
        self._surroundings = surroundings
        self._backoff = Backoff(limits.retry_first_ms, limits.retry_max_ms, surroundings.random.random)
        self._wire: Wire | None = None
        self._fault: ClientError | None = None
        self._is_away = False
        self._is_clogged = False
        self._heard_ms = 0
        self._progress_ms = 0
        self._stops_ms: int | None = None

    @property
    def is_connected(self) -> bool:
        """Whether `push` can send anything."""
        return self._wire is not None

    def add(self, octets: bytes, count: int) -> None:
        """Takes the lines that follow, each with its line feed."""
        if self.delivery.is_done:
            self._progress_ms = self._heard_ms = _now_ms()
        self.delivery.add(octets, count)

    def push(self) -> None:
        """Sends what leaves at once, and looks at nothing else; for a line among many."""
        if self._wire is None or self._is_clogged or self._stops_ms is not None:
            return
        if outgoing := self.delivery.outgoing():
            count = self._wire.push(outgoing)
            self._is_clogged = count < len(outgoing)
            self.delivery.sent(count)

    def pump(self, wait_ms: int = 0, also: int = -1) -> list[Receipt | BatchReceipt]:
        """Sends what leaves, and returns the receipts that have come, after a wait for something to do at the most.

        also: a file that ends the wait, too, when there is something to read in it.
        Connects when there is something to send; with nothing to send, a lost connection is nobody's business.
        Raises ClientError.
        """
        self._refuse_to_go_on()
        try:
            if self._wire is None and not self.delivery.is_done:
                self._connect()
            return self._round(wait_ms, also)
        except Lost as lost:
            self._lose(str(lost))
            return []
        except BadCertificate as fault:
            self.drop()
            raise Rejected(
                f"{self._endpoint} shows a certificate that does not hold: {fault}. Name its authority's certificate",
                self.delivery.first_due,
            ) from None
        except (NotOurServer, Rejected) as error:
            self.drop()
            raise type(error)(f"{self._endpoint}: {error}{self._progress()}", error.line) from None

    def freshen(self) -> None:
        """Finds out whether the server has closed the connection in the meantime; nothing is under way."""
        while self._wire is not None and self._wire.wait(0, to_send=False):
            self.pump()

    def drop(self) -> None:
        """Closes the connection; what it has not acknowledged is in doubt."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._fault = None

    def give_up(self) -> NoReturn:
        """Raises Stopped; or InDoubt, where lines may be in the log that are not to be sent again."""
        self.drop()
        self.delivery.disconnect("stopped")
        raise Stopped(f"stopped{self._progress()}", self.delivery.first_due)

    # --- one round -----------------------------------------------------------------------------------------------

    def _round(self, wait_ms: int, also: int) -> list[Receipt | BatchReceipt]:
        if self._wire is None:
            # Nothing to do here: only the other file can end the wait.
            _wait_for_file(also, wait_ms)
            return []
        delivery = self.delivery
        if self._fault is not None:
            raise self._fault
        if delivery.closing is not None:
            raise Lost(_reason(delivery.closing.code, delivery.closing.message))
        self._is_clogged = False
        self.push()
        due_ms = min(wait_ms, self._limits.poll_ms)
        if not self._wire.wait(due_ms, to_send=self._has_more(), also=also):
            self._refuse_silence()
            return []
        return self._receive(self._wire.pull())

    def _has_more(self) -> bool:
        return self._stops_ms is None and bool(self.delivery.outgoing())

    def _receive(self, octets: bytes) -> list[Receipt | BatchReceipt]:
        receipts: list[Receipt | BatchReceipt] = []
        try:
            for receipt in self.delivery.receive(octets):
                receipts.append(receipt)  # noqa: PERF402 - those before an error are acknowledged, and must come through
        except ClientError as error:
            if not receipts:
                raise
            self._fault = error
        if octets:
            self._heard_ms = _now_ms()
        if receipts:
            self._progress_ms = self._heard_ms
            self._backoff.reset()
        return receipts

    def _refuse_silence(self) -> None:
        # A full backlog is silent, too: who may not send again must not take it for a lost connection.
        is_patient = self.delivery.is_welcome and (self.delivery.is_done or not self.delivery.resends)
        if not is_patient and _now_ms() - self._heard_ms > self._limits.reply_ms:
            raise Lost(f"it said nothing for {self._limits.reply_ms / 1000:g} s")

    # --- connections -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        place, limits = self._endpoint, self._limits
        self._wire = Wire.connect(place.host, place.port, tls=place.tls, connect_ms=limits.connect_ms)
        self._heard_ms = _now_ms()
        self.delivery.connect()
        while not self.delivery.is_welcome:
            self._refuse_to_go_on()
            self._round(limits.poll_ms, -1)
        if self._is_away:
            self._surroundings.report(f"{place} is there again; going on with line {self.delivery.first_due}")
            self._is_away = False

    def _lose(self, why: str) -> None:
        """The connection is over: waits before the next one, unless that is to be given up."""
        delivery, limits = self.delivery, self._limits
        closing = delivery.closing
        was_reached = delivery.welcome is not None
        self.drop()
        delivery.disconnect(f"{self._endpoint}: {why}")
        if delivery.is_done:
            return
        left_ms = self._progress_ms + (limits.give_up_ms if was_reached else limits.reach_ms) - _now_ms()
        if left_ms <= 0:
            raise self._away(why, was_reached=was_reached)
        if not self._is_away:
            self._surroundings.report(f"{self._endpoint}: {why}; trying again from line {delivery.first_due}")
            self._is_away = True
        wait_ms = max(self._backoff.next_ms(), closing.retry_after_ms if closing is not None else 0)
        self._surroundings.stop.wait(min(wait_ms, left_ms) / 1000)

    def _away(self, why: str, *, was_reached: bool) -> ServerAway:
        if not was_reached:
            return ServerAway(
                f"{self._endpoint} was not reached: {why}. Start `hftpipe serve` there, or name another place",
                self.delivery.first_due,
            )
        waited_s = self._limits.give_up_ms / 1000
        return ServerAway(
            f"{self._endpoint} has acknowledged nothing for {waited_s:g} s: {why}{self._progress()}",
            self.delivery.first_due,
        )

    def _refuse_to_go_on(self) -> None:
        if self._surroundings.stop.is_set() and not self.delivery.is_done:
            self._stop()
        # Over a connection that is up, too: a server may stay silent for ever, though it is there.
        if (
            not self.delivery.is_done
            and self._wire is not None
            and self.delivery.welcome is not None
            and _now_ms() - self._progress_ms > self._limits.give_up_ms
        ):
            why = "it is silent; `hftpipe status` there shows whether workers apply the backlog"
            self.drop()
            self.delivery.disconnect(f"{self._endpoint}: {why}")
            raise self._away(why, was_reached=True)

    def _stop(self) -> None:
        """Sends nothing more, and waits for a short time for the receipts of what was sent."""
        if self._stops_ms is None:
            self._stops_ms = _now_ms() + self._limits.stop_ms
        is_waiting = self._wire is not None and self.delivery.outbox.is_in_doubt
        if not is_waiting or _now_ms() >= self._stops_ms:
            self.give_up()

    def _progress(self) -> str:
        if not self.delivery.has_acknowledged:
            return ""
        return f". Line {self.delivery.first_due} and those behind it are not acknowledged, all before are"


def _reason(code: str, message: str) -> str:
    return f"it says {code}{f' ({message})' if message else ''}"


def _wait_for_file(descriptor: int, wait_ms: int) -> None:
    poll = select.poll()
    if descriptor >= 0:
        poll.register(descriptor, select.POLLIN)
    poll.poll(wait_ms)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
