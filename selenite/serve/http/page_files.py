"""The web page at ``/``: the files under ``page/``, with headers that keep it to this server."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Request, Response

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    # Nothing from elsewhere, nothing to elsewhere, and no code but the files'.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # after an upgrade of the server, old and new must not mix
}


def _read() -> dict[str, tuple[bytes, str]]:
    """Path to a file's bytes and media type."""
    found: dict[str, tuple[bytes, str]] = {}
    for file in files("selenite.serve.http").joinpath("page").iterdir():
        media_type = _TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            found[path] = file.read_bytes(), media_type
    return found


_FILES = _read()
PATHS = frozenset(_FILES)
router = APIRouter(include_in_schema=False)


async def _page(request: Request) -> Response:
    content, media_type = _FILES[request.url.path]
    return Response(content, headers=_HEADERS, media_type=media_type)


for _path in sorted(PATHS):
    router.add_api_route(_path, _page, methods=["GET", "HEAD"], response_model=None)
