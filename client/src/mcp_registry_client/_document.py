"""The registration: what a server says of itself, and what its owner says of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import urlsplit

from mcp_registry_client import _tools

if TYPE_CHECKING:
    from collections.abc import Sequence

ServerType = Literal["official", "community", "mock"]
MAX_NAME = 100


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


class Unusable(Exception):
    """No registration can be made of this. The message says what to do."""


def name_of(about: About, facts: _tools.Facts) -> str:
    """The name in the registry. Raises Unusable where there is none."""
    if given := about.get("name"):
        return given  # whether it is one is for the registry to say
    name = legal_name(facts.name or "")
    if not name:
        raise Unusable("The server has no name: give it one, or register it with name='...'")
    return name


def legal_name(name: str) -> str:
    """The nearest name that the registry takes, for a framework takes any: 'Café rates' becomes 'Cafe-rates'.

    ASCII letters, digits, '.', '_' and '-'; one '/' between two parts stays. Empty where nothing is left.
    """
    if not name.isascii():
        import unicodedata  # for few: most names are plain

        name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    parts = name.strip("/ ").split("/")
    if len(parts) != 2:
        parts = [name]
    legal = (re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-._") for part in parts)
    return "/".join(filter(None, legal))[:MAX_NAME].rstrip("-._/")


def document(about: About, facts: _tools.Facts, endpoint_url: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
    """A registration, without what is not known. Raises Unusable where the server has no name."""
    name = name_of(about, facts)
    tags = about.get("tags")
    metadata = {
        "author": about.get("author"),
        "repository_url": about.get("repository_url"),
        "documentation_url": about.get("documentation_url") or facts.website_url,
        "tags": None if tags is None else list(tags),
    }
    sent = {
        "name": name,
        "display_name": about.get("display_name") or facts.title or facts.name or name,
        "description": about.get("description") or facts.description,
        "server_type": about.get("server_type", "community"),
        "endpoint_url": endpoint_url,
        "health_url": about.get("health_url"),
        "version": about.get("version") or facts.version,
        "metadata": {key: value for key, value in metadata.items() if value is not None} or None,
        "tools": tools,
    }
    return {key: value for key, value in sent.items() if value is not None}


def path_of(url: str | None) -> str | None:
    """The path of a URL, without a slash at its end; None where there is no URL."""
    return urlsplit(url).path.rstrip("/") if url else None
