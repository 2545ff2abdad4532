"""The addresses of a server, as the detail of a registry has them. An older registry knows one for each server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from mcp_registry_client import _moments, _urls
from mcp_registry_client._json import mapping, mappings, text

DAY_SECONDS: Final = 86_400
# So much of a moment tells the second: 2026-11-30T18:30:00.
SECOND: Final = 19


def listed(detail: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All endpoints, those last that are retired."""
    if isinstance(detail.get("endpoints"), list):
        return mappings(detail["endpoints"])
    last = mapping(detail.get("last_check"))
    status = "unknown" if not last else "error" if detail.get("status") == "error" else "active"
    fields = ("health_url", "last_check")
    return [{"url": detail.get("endpoint_url"), "status": status, **{field: detail.get(field) for field in fields}}]


def kept(detail: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The endpoints that are not retired."""
    return [endpoint for endpoint in listed(detail) if not endpoint.get("retired_at")]


def others(detail: Mapping[str, Any], url: str) -> list[dict[str, Any]]:
    """The endpoints at other addresses than this one."""
    return [endpoint for endpoint in kept(detail) if not is_at(endpoint, url)]


def living(endpoints: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of them that are up, or not yet checked."""
    return [endpoint for endpoint in endpoints if endpoint.get("status") in ("active", "unknown")]


def has(detail: Mapping[str, Any], url: str) -> bool:
    """Whether the server has an endpoint at this address already."""
    return any(is_at(endpoint, url) for endpoint in kept(detail))


def leased(endpoints: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of them that have announced themselves: their lease is running, though they may have ended since."""
    return [endpoint for endpoint in endpoints if _moments.left(endpoint.get("lease_until"))]


def story(detail: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What happened within the last day, newest first: that the server was registered is told beside the changes.

    Within a second an endpoint is first added and then looked at: the two moments are told by different clocks.
    """
    told = sorted(changes, key=lambda one: (text(one.get("at"))[:SECOND], one.get("change") != "added"), reverse=True)
    registered = detail.get("created_at")
    if _moments.moment(registered) is not None and _moments.passed(registered) < DAY_SECONDS:
        told.append({"at": registered, "change": "registered"})
    return told


def is_at(endpoint: Mapping[str, Any], url: str) -> bool:
    """Whether an endpoint has this address, however it is spelled."""
    given = text(endpoint.get("url"))
    return given == url or (_urls.link_fault(given) is None and _place(given) == _place(url))


def _place(url: str) -> tuple[str, str]:
    return _urls.origin(url), _urls.path(url)
