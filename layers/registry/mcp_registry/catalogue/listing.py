"""What a list is asked for: filters, page size and cursor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from mcp_registry.caller import MAX_TEAM
from mcp_registry.catalogue import cursor
from mcp_registry.catalogue.cursor import Filters
from mcp_registry.errors import Fault, ValidationFailed

STATUSES = ("active", "inactive", "error")
TYPES = ("official", "community", "mock")
VERDICTS = (
    *("healthy", "gated", "limited", "not_mcp", "mcp_error", "http_error"),
    *("timeout", "refused", "dns", "tls", "blocked", "unknown"),
)
PARAMETERS = ("status", "verdict", "type", "owner", "search", "tag", "limit", "cursor")

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
MAX_SEARCH = 200
MAX_TAG = 64

LIMIT = re.compile(r"[1-9][0-9]{0,3}")
# Names and display names hold none of these but by accident. U+FFFD is what a gateway makes of broken UTF-8.
UNSEARCHABLE = re.compile("[\x00-\x1f\ud800-\udfff\ufffd]")


class Listing(NamedTuple):
    """A checked request for one page: the servers that pass `filters` and follow the id `after`."""

    filters: Filters
    limit: int
    after: int


def parse(query: Mapping[str, str]) -> Listing:
    """Check the query parameters of a list.

    An empty filter is no filter; a cursor brings its filters along. Raises ValidationFailed with every fault,
    parameters that do not exist included: a misspelt filter would silently list everything.
    """
    faults = [Fault(name, "There is no such parameter", "unknown") for name in query if name not in PARAMETERS]
    status, type_, verdict = (query.get(name) or None for name in ("status", "type", "verdict"))
    search, tag, owner = (_trimmed(query.get(name, "")) for name in ("search", "tag", "owner"))
    filters = Filters(status, type_, search, tag, verdict, owner)
    faults += _filter_faults(filters)
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not LIMIT.fullmatch(limit) or int(limit) > MAX_LIMIT:
        faults.append(Fault("limit", f"Must be a number from 1 to {MAX_LIMIT}", "value"))
    after = 0
    if "cursor" in query:
        try:
            after, issued_for = cursor.decode(query["cursor"])
            if _filter_faults(issued_for):
                raise ValueError("a cursor of our own making has valid filters")
        except ValueError:
            faults.append(Fault("cursor", "Not a cursor of this registry: start again without one", "value"))
        else:
            if filters not in (Filters(), issued_for):
                faults.append(Fault("cursor", "Issued for other filters: repeat those, or leave them out", "value"))
            filters = issued_for
    if faults:
        raise ValidationFailed(faults=faults)
    return Listing(filters, int(limit), after)


def _trimmed(text: str) -> str | None:
    """A text without the blanks that come along with what is copied; None where nothing else is in it."""
    # strip() takes control characters too, which are for the check to refuse.
    return text if UNSEARCHABLE.search(text) else text.strip() or None


def _filter_faults(filters: Filters) -> list[Fault]:
    faults: list[Fault] = []
    words = (
        ("status", filters.status, STATUSES),
        ("verdict", filters.verdict, VERDICTS),
        ("type", filters.type, TYPES),
    )
    for name, value, allowed in words:
        if value is not None and value not in allowed:
            faults.append(Fault(name, f"Must be one of {', '.join(allowed)}", "enum"))
    texts = (
        ("search", filters.search, MAX_SEARCH),
        ("tag", filters.tag, MAX_TAG),
        ("owner", filters.owner, MAX_TEAM),
    )
    for name, text, longest in texts:
        if text is not None:
            if len(text) > longest:
                faults.append(Fault(name, f"Must have at most {longest} characters", "length"))
            if UNSEARCHABLE.search(text):
                faults.append(Fault(name, "Holds control characters or is not UTF-8", "text"))
    return faults
