"""What the page takes from a browser: requests of a limited size, and no files."""

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["MAX_REQUEST_BYTES", "RequestLimits"]

MAX_REQUEST_BYTES = 1 << 16  # texts of two prompts, some numbers
FORBIDDEN, TOO_LARGE = 403, 413

Messages = Callable[..., Awaitable[Any]]


class RequestLimits:
    """ASGI middleware that answers an upload or an overlong request without reading it."""

    def __init__(self, app: Messages) -> None:
        """Stand before `app`, the page's server."""
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Messages, send: Messages) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].rstrip("/").endswith("/upload"):
            await _answer(send, FORBIDDEN, b"uploads are off")
        elif _stated_length(scope) > MAX_REQUEST_BYTES:
            await _answer(send, TOO_LARGE, b"the request is too long")
        else:
            await self._app(scope, _bounded(receive), send)


def _stated_length(scope: dict[str, Any]) -> int:
    text = dict(scope["headers"]).get(b"content-length", b"0")
    return int(text) if text.isdigit() and len(text) < 20 else 0


def _bounded(receive: Messages) -> Messages:
    """Return `receive`, which ends a request that is longer than it may be and did not say so."""
    num_bytes = 0

    async def receive_some() -> dict[str, Any]:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > MAX_REQUEST_BYTES:
            return {"type": "http.disconnect"}
        return message

    return receive_some


async def _answer(send: Messages, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
