"""Lines over TCP: `lines.py` is the protocol, bytes in, events out; `connection.py`, `server.py` move the bytes."""
