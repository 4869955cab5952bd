"""A synchronous client of `hftpipe serve`: transactions in, typed receipts out."""

import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from hftpipe.client.courier import Courier, Surroundings, endpoint, silent
from hftpipe.client.delivery import Delivery, Hello
from hftpipe.client.limits import SECRET_BYTES_MAX, ClientLimits
from hftpipe.client.replies import BatchReceipt, Receipt
from hftpipe.client.transaction import Transaction
from hftpipe.errors import UsageError


class Client:
    """Sends transactions over one connection, which it makes when it is needed and again when it is lost.

    For one thread. A receipt that is returned is final: `durable` survives the death of anything. Lost connections, a
    busy, full or restarting server are waited out, up to `limits.give_up_ms` without any receipt; whatever was not
    acknowledged is sent again, in order. What that means:

    * A deposit or withdrawal that had arrived the first time is known by its `tx`: the receipt says `duplicate`, with
      the address of the first, and nothing is appended. So a duplicate after a lost connection is as good as durable.
    * A dispute, resolve or chargeback has no id of its own and may be in the log twice. The end is the same as after
      one sending: of each account the log has a beginning of the tail that is sent again, so all of it is decided in
      order once more behind that. A dispute leaves its deposit disputed and a resolve leaves it undisputed, whatever
      it was before, so the last one decides, as the first time; a chargeback locks the account, and everything
      behind it is refused. The journal shows the repeats, and money may be held once more in between.
    * That does not hold where one was refused only because it came too early: a dispute sent ahead of its own
      deposit, a chargeback sent ahead of its own dispute. Nor where somebody else settles the same deposit meanwhile.
      Who sends such things turns `resends` off: then InDoubt names the first that was sent and not acknowledged.

    Errors (`ClientError`) name the first line that is not acknowledged; nothing before it is missing.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:7070",
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        resends: bool = True,
        report: Callable[[str], None] = silent,
        limits: ClientLimits | None = None,
    ) -> None:
        """Connects with the first transaction.

        token: the secret that `hftpipe token add` has shown. tls: `tls_context()`, or one of the caller's own.
        report: takes a line for people when the connection is lost. Raises UsageError.
        """
        self._limits = limits if limits is not None else ClientLimits()
        self._endpoint = endpoint(address, tls)
        delivery = Delivery(Hello("line", checked_token(token)), header=None, resends=resends)
        self._courier = Courier(self._endpoint, delivery, self._limits, Surroundings(report=report))
        self._is_closed = False
        self._is_sending = False

    def __repr__(self) -> str:
        return f"Client({str(self._endpoint)!r})"

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, transaction: Transaction) -> Receipt:
        """Sends one, and waits until it is acknowledged. Raises ClientError, then it is in doubt."""
        (receipt,) = self.send_many([transaction])
        return receipt

    def send_many(self, transactions: Iterable[Transaction]) -> Iterator[Receipt]:
        """A receipt for each transaction, in order; `Receipt.line` counts them from 1.

        Up to `limits.window_transactions_max` are under way at a time. Each is sent as soon as it is drawn, those of
        a list some at a time; receipts come between two of them, so where the iterable waits, they wait.
        Raises ClientError: from its `line` on they are not acknowledged. When the iteration is given up, nobody knows
        of those whose receipt was not taken.
        """
        if self._is_closed:
            raise UsageError("this client is closed; make another one")
        courier, limits = self._courier, self._limits
        if self._is_sending:
            raise UsageError("take all receipts of one `send_many`, or close it, before you send more")
        self._is_sending = True
        may_wait = not isinstance(transactions, Sequence)
        try:
            courier.freshen()
            courier.delivery.renumber()
            for number, transaction in enumerate(transactions, 1):
                courier.add(transaction.line(), 1)
                if may_wait:
                    courier.push()
                if number % limits.exchange_transactions == 0 or not courier.is_connected:
                    yield from _receipts(courier, 0)
                while courier.delivery.outbox.lines_held >= limits.window_transactions_max:
                    yield from _receipts(courier, limits.poll_ms)
            while not courier.delivery.is_done:
                yield from _receipts(courier, limits.poll_ms)
        finally:
            self._is_sending = False
            if not courier.delivery.is_done:
                self._forget()

    def close(self) -> None:
        """Closes the connection."""
        self._courier.drop()
        self._is_closed = True

    def _forget(self) -> None:
        """What is under way will not be asked for any more; its replies must not be taken for those of others."""
        self._courier.drop()
        self._courier.delivery.forget()


def _receipts(courier: Courier, wait_ms: int) -> Iterator[Receipt]:
    for receipt in courier.pump(wait_ms):
        if not isinstance(receipt, BatchReceipt):
            yield receipt


def checked_token(token: str) -> str:
    """A secret that can be one; the message never shows it. Raises UsageError."""
    if not token.isascii() or not token.isprintable() or len(token) > SECRET_BYTES_MAX:
        raise UsageError(
            "the token is no secret as `hftpipe token add` shows it: ASCII, 256 characters at most"
        )
    return token


def tls_context(authority: Path | None = None) -> ssl.SSLContext:
    """Checks the server's certificate against an authority's, or those that the system trusts. Raises UsageError."""
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as fault:
        reason = "it holds no certificate in PEM" if isinstance(fault, ssl.SSLError) else fault.strerror
        raise UsageError(f"{authority} cannot be used as an authority's certificate: {reason}") from fault
