"""What the page takes from a browser: requests of a limited size."""

from collections.abc import Awaitable, Callable
from typing import Any

from mg.pipelines.page_uploads import MAX_UPLOAD_BYTES

__all__ = ["MAX_REQUEST_BYTES", "RequestLimits"]

MAX_REQUEST_BYTES = 1 << 16  # texts of two prompts, some numbers
TOO_LARGE = 413

Messages = Callable[..., Awaitable[Any]]


class RequestLimits:
    """ASGI middleware that answers an overlong request without reading it."""

    def __init__(self, app: Messages) -> None:
        """Stand before `app`, the page's server."""
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Messages, send: Messages) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/").endswith("/upload")
        # An upload has a little around it.
        max_bytes = MAX_REQUEST_BYTES + (MAX_UPLOAD_BYTES if is_upload else 0)
        if _stated_length(scope) > max_bytes:
            what = b"video" if is_upload else b"request"
            await _answer(send, TOO_LARGE, b"the %s is too long" % what)
        else:
            await self._app(scope, _bounded(receive, max_bytes), send)


def _stated_length(scope: dict[str, Any]) -> int:
    text = dict(scope["headers"]).get(b"content-length", b"0")
    return int(text) if text.isdigit() and len(text) < 20 else 0


def _bounded(receive: Messages, max_bytes: int) -> Messages:
    """Return `receive`, which ends a request that is longer than it may be and did not say so."""
    num_bytes = 0

    async def receive_some() -> dict[str, Any]:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > max_bytes:
            return {"type": "http.disconnect"}
        return message

    return receive_some


async def _answer(send: Messages, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
