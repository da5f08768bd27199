"""How vocabularies write the bytes of a token: a character per byte, as text, or as SentencePiece pieces."""

import re
from collections.abc import Callable
from functools import cache

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def of_byte_level(name: str, is_added: bool) -> bytes:
    """Return the bytes of a token in a byte-level vocabulary, which writes each byte as a character."""
    table = byte_of_character()
    if is_added or not table.keys() >= set(name):
        return name.encode()
    return bytes(map(table.__getitem__, name))


def of_text(name: str, is_added: bool) -> bytes:
    """Return the bytes of a token that is written as its own text."""
    return name.encode()


def of_pieces(name: str, is_added: bool) -> bytes:
    """Return the bytes of a SentencePiece piece: U+2581 is a space, and `<0xHH>` a single byte."""
    if name[:1] == "<" and not is_added and (byte := BYTE.fullmatch(name)):
        return bytes([int(byte[1], 16)])
    return name.replace("\u2581", " ").encode()


Kind = Callable[[str, bool], bytes]
KINDS: tuple[Kind, ...] = (of_byte_level, of_text, of_pieces)


@cache
def byte_of_character() -> dict[str, int]:
    """Return the byte that each of the 256 characters of byte-level vocabularies stands for.

    Printable bytes of Latin-1 are written as themselves, the others, in order, as the characters from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
