"""Foreign text, made safe for a terminal and for one line."""


def printable(text: str) -> str:
    """Each character that is not printable as an escape: line ends, what steers a terminal, halves of characters."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
