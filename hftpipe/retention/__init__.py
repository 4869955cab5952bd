"""How much of what was applied stays in the log, so that it can be replayed from there."""
