"""Tokens of the registry's own: `mcpr_<id>_<secret>_<checksum>`, by which a person or a job says who it is.

The prefix is what scanners find that look for secrets in text, and the checksum is how they know that it is none by
chance: six digits in base 62 of the CRC-32 of all before it. So one that was cut or mistyped is refused without asking
anybody. The id may be told; the secret has 238 bits, which nobody guesses, so that its plain SHA-256 may be stored.

Imports built-in modules only, for the authorizer (`auth`): not even `typing`.
"""

from __future__ import annotations

from binascii import crc32

# What `hashlib` gives, without OpenSSL, which takes 4 ms to load (2026-11-30). `random` does the same.
try:
    from _sha2 import sha256  # pyright: ignore[reportMissingImports] - since Python 3.12
except ImportError:
    from _sha256 import sha256  # pyright: ignore[reportMissingImports]

PREFIX = "mcpr"
ID_LENGTH = 12
SECRET_LENGTH = 40
CHECKSUM_LENGTH = 6  # 62 to the sixth is more than two to the 32nd
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Token(tuple[str, str]):
    """A token that is well formed: its public id, and all of it, which nobody but its holder keeps."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """What may be told of it."""
        return self[0]

    @property
    def text(self) -> str:
        """The whole token."""
        return self[1]

    def __repr__(self) -> str:
        """Without the secret: this is what a traceback or a log would show."""
        return f"Token({self.id})"


def make() -> Token:
    """A new token."""
    from secrets import choice  # 5 ms, and who reads tokens does not need it

    id_ = "".join(choice(DIGITS) for _ in range(ID_LENGTH))
    secret = "".join(choice(DIGITS) for _ in range(SECRET_LENGTH))
    unchecked = f"{PREFIX}_{id_}_{secret}"
    return Token((id_, f"{unchecked}_{_checksum(unchecked)}"))


def parse(text: str) -> Token | None:
    """The token that this is; None where it is not of the form, or its checksum is another."""
    parts = text.split("_")
    if [len(part) for part in parts] != [len(PREFIX), ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH]:
        return None
    prefix, id_, secret, checksum = parts
    if prefix != PREFIX or not (id_ + secret).isalnum() or not text.isascii():
        return None
    return Token((id_, text)) if _checksum(f"{prefix}_{id_}_{secret}") == checksum else None


def digest(text: str) -> bytes:
    """What is stored of a token, and asked for: the SHA-256 of all of it."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _checksum(text: str) -> str:
    rest, digits = crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(DIGITS))
        digits = DIGITS[digit] + digits
    return digits
