"""Pure code: bytes and values in, values out. No clock, no random, no socket, no file."""
