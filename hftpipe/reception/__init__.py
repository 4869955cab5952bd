"""The reception service, `hftpipe serve`: transactions over TCP and HTTP, acknowledged when they are durable.

    tcp.py   lines.py ─┐  bytes in, events out                 ┌─ appender.py   one thread: what arrived while the
    http/    app.py   ─┼─► validation ─► desk.py (asyncio) ────┤                last append was under way is the next
                       │                  submit, applied      └─ repeats.py    ids sent again are told, not appended
    tokens.py, metrics.py              ◄─ receipts.py

`service.py` puts them together, and says in which order they stop.
"""
