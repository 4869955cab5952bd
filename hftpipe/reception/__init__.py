"""The reception service, `hftpipe serve`: transactions over TCP and HTTP, acknowledged when they are durable.

    tcp/    lines in, replies out ──┐                              ┌─ appender.py   one thread: what arrived while the
    http/   requests and answers  ──┼─► validation ─► desk.py ─────┤                last append was under way is the next
    access/ tokens, TLS             │                (asyncio)     └─ repeats.py    ids sent again are told, not appended
                                    │                    │
            receipts.py  ◄──────────┴────────────────────┴─── inquiries.py          what became of them: the stores

`service.py` puts them together, and says in which order they stop.
"""
