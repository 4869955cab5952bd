"""The reception service, `hftpipe serve`: transactions over TCP and HTTP, acknowledged when they are durable.

    tcp/    lines, replies ────┐                               ┌─ appender.py  one thread: what arrived while the last
    http/   requests, answers ─┼─► validation ─► desk.py ──────┤               append was under way is the next group
    access/ tokens, TLS        │                (asyncio)      └─ repeats.py   ids sent again are told, not appended
                               │                   │
            receipts.py ◄──────┴───────────────────┴── inquiries.py            what became of them: the stores

`service.py` puts them together, and says in which order they stop.
"""
