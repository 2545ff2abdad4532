"""The registration: what a server says of itself, and what its owner says of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from mcp_registry_client import _telling, _tools

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mcp_registry_client._trimming import LeftOut

ServerType = Literal["official", "community", "mock"]
# The limits of the registry that a server's own words may exceed. What people give is left to it to refuse.
MAX_NAME, MAX_DISPLAY_NAME, MAX_VERSION = 100, 200, 255
# The registry takes a longer one, where there is room beside the tools. It has this limit for those of tools.
MAX_DESCRIPTION = 64 << 10
# What no text in the registry can hold: NUL, and half a surrogate pair.
NO_TEXT = re.compile("[\0\ud800-\udfff]")
# How Unicode calls letters that are one of ours with something added, or two of ours in one: as in "Łódź" and "Ærø".
LATIN = re.compile(r"LATIN (SMALL|CAPITAL) (?:LETTER|LIGATURE) ([A-Z]{1,2})(?: WITH .*)?")


class About(TypedDict, total=False):
    """What the owner of a server may say of it; everything may be left out that the server says itself."""

    name: str | None
    display_name: str | None
    description: str | None
    server_type: ServerType
    endpoint_url: str | None
    health_url: str | None
    version: str | None
    author: str | None
    repository_url: str | None
    documentation_url: str | None
    tags: Sequence[str] | None


class Draft(NamedTuple):
    """A registration before it is sent, and the tools that could not even be put into it."""

    document: dict[str, Any]
    left_out: Sequence[LeftOut] = ()


class Unusable(Exception):
    """No registration can be made of this. The message says what to do."""


def name_of(about: About, facts: _tools.Facts) -> str:
    """The name in the registry. Raises Unusable where there is none."""
    if given := about.get("name"):
        return given  # whether it is one is for the registry to say
    if not facts.name:
        raise Unusable("The server has no name: give it one, or register it with name='...'")
    return legal_name(facts.name)


def legal_name(name: str) -> str:
    """The name under which the registry takes a server that calls itself so, for a framework takes any.

    Letters are those of ASCII, as far as they are any: 'Café rates' becomes 'Cafe-rates'. Punctuation becomes '-'; one
    '/' between two parts stays. Where more than that is lost, two names could become one, and one server take the
    place of another: so where letters, digits or pictures have no equal, where it is too long, and where only digits
    are left, which would be taken for an id, eight digits of the SHA-256 of the name follow ('weather-1c5ea0f3'; or
    'mcp-1c5ea0f3', where no letter is left). The same name becomes the same at every start.
    """
    ascii_name, is_whole = (name, True) if name.isascii() else _transliterated(name)
    parts = ascii_name.strip("/ ").split("/")
    if len(parts) != 2:
        parts = [ascii_name]
    words = (re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-._") for part in parts)
    legal = "/".join(filter(None, words))
    if is_whole and len(legal) <= MAX_NAME and legal and not legal.isdigit():
        return legal
    import hashlib
    import unicodedata

    # In one form, for editors and file systems write the same letters in two.
    text = unicodedata.normalize("NFC", name)
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    begin = legal[: MAX_NAME - len(digest) - 1].rstrip("-._/")
    return f"{begin}-{digest}" if re.search("[A-Za-z]", begin) else f"mcp-{digest}"


def _transliterated(name: str) -> tuple[str, bool]:
    """A name in ASCII, and whether all its letters, digits and pictures have an equal there."""
    import unicodedata  # for few: most names are plain

    found: list[str] = []
    is_whole = True
    for character in unicodedata.normalize("NFKD", name):
        category = unicodedata.category(character)
        if character.isascii():
            found.append(character)
        elif latin := LATIN.fullmatch(unicodedata.name(character, "")):
            found.append(latin[2].capitalize() if latin[1] == "CAPITAL" else latin[2].lower())
        elif (folded := character.casefold()).isascii() or (folded := character.upper()).isascii():
            found.append(folded.lower())  # the sharp s, and the i without a dot
        elif category[0] in "PZ":
            found.append(" ")
        # Signs of Latin-1, as of a trade mark, decorate a name; beyond are pictures, by which people tell things apart.
        elif category[0] in "LN" or (category in ("So", "Sc") and character > "\xff"):
            is_whole = False
    return "".join(found), is_whole


def document(
    about: About,
    facts: _tools.Facts,
    endpoint_url: str,
    tools: list[dict[str, Any]],
    tell: Callable[[str], None] = _telling.warn_once,
) -> dict[str, Any]:
    """A registration, without what is not known. Raises Unusable where the server has no name.

    What the server says of itself must not keep it out: that is cut to what the registry takes, and `tell` is called
    with a sentence that says what was cut.
    """
    name = name_of(about, facts)
    given = (about.get("display_name"), about.get("description"), about.get("version"))
    said = [_mended(text) for text in (facts.title or facts.name or name, facts.description, facts.version)]
    cut = (said[0][:MAX_DISPLAY_NAME], _beginning(said[1], MAX_DESCRIPTION), said[2][:MAX_VERSION])
    fields = ("display_name", "description", "version")
    display_name, description, version = (own or its or None for own, its in zip(given, cut, strict=True))
    if lost := [
        field for field, own, its, rest in zip(fields, given, said, cut, strict=True) if not own and its != rest
    ]:
        tell(f"{name} says more of itself than the registry takes, and the end is cut off: {', '.join(lost)}")
    tags = about.get("tags")
    metadata = {
        "author": about.get("author"),
        "repository_url": about.get("repository_url"),
        "documentation_url": about.get("documentation_url") or _link(facts.website_url),
        "tags": None if tags is None else list(tags),
    }
    sent = {
        "name": name,
        "display_name": display_name,
        "description": description,
        "server_type": about.get("server_type", "community"),
        "endpoint_url": endpoint_url,
        "health_url": about.get("health_url"),
        "version": version,
        "metadata": {key: value for key, value in metadata.items() if value is not None} or None,
        "tools": tools,
    }
    return {key: value for key, value in sent.items() if value is not None}


def _mended(text: str | None) -> str:
    """The same without what is no text to the registry; empty where there is none."""
    return NO_TEXT.sub("\ufffd", text or "")


def _beginning(text: str, most: int) -> str:
    """As much of a text as has so many bytes of UTF-8."""
    return text.encode()[:most].decode(errors="ignore")


def _link(url: str | None) -> str | None:
    """What a server calls its website, where that is a link: a word there must not keep the server out."""
    if url is None:
        return None
    from mcp_registry_client import _urls  # 10 ms, for the few servers that have one

    return None if _urls.link_fault(url) else url
