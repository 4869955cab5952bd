"""Pictures made of text: SVG without a background, legible on a light page and on a dark one; pure."""

from collections.abc import Sequence
from html import escape
from typing import Final

WIDTH: Final = 860
LETTER: Final = 7.6
"""Width of a letter of the text, rounded up: what a reader's font really takes is not known here."""

_STYLE: Final = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 } .heading { font-weight: 600 } .faint { fill: #59636e }
.bar { fill: #afb8c1 } .ours { fill: #0969da } .grid { stroke: #59636e; stroke-opacity: .25 }
.spread { stroke: #1f2328; stroke-width: 1.5 }
.line { fill: none; stroke: #0969da; stroke-width: 1.5 } .second { stroke: #bc4c00; stroke-dasharray: 5 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .faint { fill: #9198a1 } .bar { fill: #656c76 } .ours { fill: #4493f8 }
  .grid { stroke: #9198a1 } .spread { stroke: #f0f6fc } .line { stroke: #4493f8 } .second { stroke: #f0883e }
}
"""


def document(height: int, title: str, description: str, parts: Sequence[str]) -> str:
    """A picture as a file: the title stands above it, and is read out with the description where it is not seen."""
    title = escape(title)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" aria-labelledby="title description">',
            f'<title id="title">{title}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            f"<style>{_STYLE}</style>",
            f'<text class="title" x="8" y="26">{title}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )
