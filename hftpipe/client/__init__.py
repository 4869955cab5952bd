"""The client of `hftpipe serve`: send transactions from Python, and know what became of each.

from hftpipe.client import Client, Kind, Transaction

with Client("127.0.0.1:7070") as client:
    receipt = client.send(Transaction(Kind.DEPOSIT, account=1, tx=1, amount="10.00"))
    print(receipt.status, receipt.entry)              # durable 3/1-1042
    for receipt in client.send_many(transactions):    # pipelined, a bounded window
        ...

delivery.py    the protocol, over any number of connections: bytes in, receipts out
  outbox.py    lines that are not acknowledged; replies.py  what the server says
courier.py     reconnects, waits, gives up;  wire.py  the socket
client.py      for callers;  passage.py  whole files, for `hftpipe send`
"""

from hftpipe.client.client import Client, tls_context
from hftpipe.client.errors import ClientError, InDoubt, NotOurServer, Rejected, ServerAway, Stopped
from hftpipe.client.limits import ClientLimits
from hftpipe.client.replies import BatchReceipt, Receipt, Status
from hftpipe.client.transaction import Transaction
from hftpipe.core.transaction import Kind

__all__ = [
    "BatchReceipt",
    "Client",
    "ClientError",
    "ClientLimits",
    "InDoubt",
    "Kind",
    "NotOurServer",
    "Receipt",
    "Rejected",
    "ServerAway",
    "Status",
    "Stopped",
    "Transaction",
    "tls_context",
]
