"""Foreign text, made safe for a terminal, for one line, and for spreadsheets."""


def printable(text: str) -> str:
    """Each character that is not printable as an escape: line ends, what steers a terminal, halves of characters."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def guarded(text: str) -> str:
    """Text that no spreadsheet takes for a formula: it gets a `'` before it where it begins like one."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
