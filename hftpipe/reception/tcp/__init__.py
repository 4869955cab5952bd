"""Lines over TCP: `lines.py` is the protocol, bytes in and events out; `connection.py` and `server.py` move the bytes."""
