"""`register`: one line for a server object of the MCP SDK or of fastmcp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mcp_registry_client import _settings
from mcp_registry_client._announcer import Registration
from mcp_registry_client._document import About, ServerType
from mcp_registry_client._presence import WELL_KNOWN, Presence, StarletteRoute


def register(
    server: Any,
    *,
    name: str | None = None,
    display_name: str | None = None,
    description: str | None = None,
    server_type: ServerType = "community",
    endpoint_url: str | None = None,
    health_url: str | None = None,
    version: str | None = None,
    author: str | None = None,
    repository_url: str | None = None,
    documentation_url: str | None = None,
    tags: Sequence[str] | None = None,
    tools: Any = None,
    path: str | None = None,
) -> Registration:
    """Have a server announce itself to the registry of `MCP_REGISTRY_URL`, once it runs and whenever it changed.

    Call it before the server runs, and before its ASGI application is made. It returns at once, raises nothing, and
    registers nothing until the server answers over HTTP.

    Args:
        server: FastMCP, MCPServer, or a low-level Server.
        name: Its name in the registry; otherwise its own.
        display_name: For people.
        description: What it is for; otherwise its instructions.
        server_type: official, community or mock.
        endpoint_url: Where clients reach it; otherwise `MCP_ENDPOINT_URL`. A registry on the same machine needs none.
        health_url: What the registry asks with GET, instead of asking the endpoint itself.
        version: Of the server; otherwise its own.
        author: Who made it.
        repository_url: Where its source is.
        documentation_url: Where to read about it.
        tags: Words to find it by.
        tools: A list, or a function that returns one, instead of the server's own.
        path: Of the endpoint within this process, the whole of it, as `/analytics/mcp`: for a low-level server that
            is not at /mcp, and where the server is mounted in another application.
    """
    about: About = {
        "name": name,
        "display_name": display_name,
        "description": description,
        "server_type": server_type,
        "endpoint_url": endpoint_url,
        "health_url": health_url,
        "version": version,
        "author": author,
        "repository_url": repository_url,
        "documentation_url": documentation_url,
        "tags": tags,
    }
    settings = _settings.from_environment()
    custom_route = getattr(server, "custom_route", None)
    presence = Presence(server, tools, about, settings, path, routed=callable(custom_route))
    registration = Registration(presence, settings)
    if settings.registry_url is None:
        return registration  # not a route more
    try:
        if callable(custom_route):
            _add_routes(custom_route, presence)
        registration.start()
    except Exception as error:  # noqa: BLE001 - whatever it is, the server runs on
        registration.refuse(f"it cannot be prepared ({type(error).__name__}: {error})")
    return registration


def _add_routes(custom_route: Callable[..., Any], presence: Presence) -> None:
    """Add the routes that answer for the server."""
    route = StarletteRoute(presence)
    custom_route(WELL_KNOWN, methods=["GET"], include_in_schema=False)(route.known)
    for path in presence.paths():
        custom_route(path, methods=["GET"], include_in_schema=False)(route.health)
