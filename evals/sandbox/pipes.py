"""Messages on the pipes between judge and candidate: JSON prefixed by its length."""

import json
import os
import struct
from typing import Any

MAX_MESSAGE = 512 * 2**20
_HEADER = struct.Struct("<Q")


def dump(message: Any) -> bytes:
    """Encode a message."""
    return json.dumps(message, separators=(",", ":")).encode()


def send(descriptor: int, body: bytes) -> None:
    """Write one message."""
    view = memoryview(_HEADER.pack(len(body)) + body)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> Any:
    """Read one message.

    Raises:
        EOFError: the other side is gone.
        ValueError: the message is too long or not JSON.
    """
    (size,) = _HEADER.unpack(_read(descriptor, _HEADER.size))
    if size > MAX_MESSAGE:
        raise ValueError(f"a message of {size} bytes")
    return json.loads(_read(descriptor, size))


def _read(descriptor: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), 2**20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
