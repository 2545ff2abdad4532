"""Whether a page of the list costs the same in a catalogue of 100,000 servers as in one of 1,000.

Through `servers.list_page`, `total` included, on one warm connection to each catalogue, in turns. Both give a page of
as many servers: 100, or fewer where the small catalogue has no more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.catalogue import filled
from benchmarks.report import Result, alternate, figure, medians, table, wall_ms
from mcp_registry.aws.db import Database
from mcp_registry.catalogue import servers
from mcp_registry.catalogue.cursor import Filters

SMALL, LARGE = 1_000, 100_000
PAGE = 100
ROUNDS = 40
PAGE_BAR, SEARCH_BAR = 1.2, 3.0


class Ask(NamedTuple):
    """What a page is asked for; `depth` is the share of the catalogue before it."""

    what: str
    filters: Filters
    depth: float = 0.0

    @property
    def bar(self) -> float:
        """How many times as long the large catalogue may take."""
        counted = self.filters.search or self.filters.verdict
        return SEARCH_BAR if counted else PAGE_BAR


# How many servers a word finds grows with the catalogue, except for the rare one, which finds one in any.
ASKS = (
    Ask("first page", Filters()),
    Ask("deep page (80 %)", Filters(), 0.8),
    Ask("status=active", Filters(status="active")),
    Ask("status=error, deep (50 %)", Filters(status="error"), 0.5),
    Ask("type=community", Filters(type="community")),
    Ask("type=mock, deep (50 %)", Filters(type="mock"), 0.5),
    Ask("status=error&type=mock", Filters(status="error", type="mock")),
    Ask("status=active&type=community", Filters(status="active", type="community")),
    Ask("verdict=healthy", Filters(verdict="healthy")),
    Ask("verdict=http_error", Filters(verdict="http_error")),
    Ask("verdict=timeout, deep (50 %)", Filters(verdict="timeout"), 0.5),
    Ask("verdict=unknown", Filters(verdict="unknown")),
    Ask("search=quetzal", Filters(search="quetzal")),
    Ask("search=terraform", Filters(search="terraform")),
    Ask("search=database", Filters(search="database")),
    Ask("search=server", Filters(search="server")),
    Ask("search=database&status=error", Filters(search="database", status="error")),
    Ask("search=database, deep (50 %)", Filters(search="database"), 0.5),
    Ask("search=sql (3 characters)", Filters(search="sql")),
    Ask("search=ab (2 characters)", Filters(search="ab")),
    Ask("search=xqzv (nothing)", Filters(search="xqzv")),
)


def run(server_url: str) -> list[Result]:
    """Measure every kind of page in both catalogues and print what they took."""
    catalogues = {count: Database(filled(server_url, f"paging_{count}", count)) for count in (SMALL, LARGE)}
    rows = [("page", "servers", f"matches in {LARGE:,}", f"ms at {SMALL:,}", f"ms at {LARGE:,}", "ratio", "bar")]
    results: list[Result] = []
    for ask in ASKS:
        size = max(1, _on_page(catalogues[SMALL], ask))
        pages = {count: _page(database, ask, count, size) for count, database in catalogues.items()}
        page = pages[LARGE]()
        total = f"{page.total:,}" + ("" if page.exact else " or more")
        subjects = {str(count): wall_ms(page) for count, page in pages.items()}
        alternate(subjects, 2)
        measured = medians(alternate(subjects, ROUNDS))
        result = Result(f"page: {ask.what}", measured[str(LARGE)], measured[str(SMALL)], "ms", ask.bar)
        figures = (figure(result.baseline), figure(result.ours), f"{result.ratio:.2f}", f"<= {ask.bar}")
        rows.append((ask.what, str(size), total, *figures))
        results.append(result)
    print(table(rows))
    for database in catalogues.values():
        database.close()
    return results


def _on_page(small: Database, ask: Ask) -> int:
    """How many servers the page has in the small catalogue."""
    return len(json.loads(_page(small, ask, SMALL, PAGE)().servers))


def _page(database: Database, ask: Ask, count: int, size: int) -> Callable[[], servers.Page]:
    return lambda: servers.list_page(database.begin(), ask.filters, size, int(count * ask.depth))
