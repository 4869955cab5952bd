"""The files of the page, as they are in the package: nothing is built, and nothing fetched from elsewhere."""

from hashlib import sha256
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGE: Final = "index.html"
_ETAG_DIGITS: Final = 32

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # kept, and asked for again each time: another release may be there
}


class Assets:
    """Read once; they hold no data, and are open to all."""

    def __init__(self) -> None:
        folder = files(__package__).joinpath("static")
        self._contents = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        self._etags = {
            name: f'"{sha256(content).hexdigest()[:_ETAG_DIGITS]}"'
            for name, content in self._contents.items()
        }

    @property
    def names(self) -> list[str]:
        """Of all files but the page itself."""
        return sorted(self._contents.keys() - {_PAGE})

    async def page(self, request: Request) -> Response:
        """The page itself."""
        return self._answer(_PAGE, request)

    async def file(self, request: Request) -> Response:
        """One of its files; routes name those that there are."""
        return self._answer(request.url.path.rpartition("/")[2], request)

    def _answer(self, name: str, request: Request) -> Response:
        etag = self._etags[name]
        headers = {**_HEADERS, "etag": etag}
        asked = request.headers.get("if-none-match", "")
        if etag in (each.strip().removeprefix("W/") for each in asked.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self._contents[name], headers=headers, media_type=_TYPES[name[name.rindex(".") :]])
