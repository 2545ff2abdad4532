"""Who is calling, and what they may: the roles, and what a statement is told of a caller.

The authorizer says who it is. Which routes a role may call says the template (ROLES), and the edge holds it. Which
servers a caller may change say the statements that write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from mcp_registry.errors import NotConfigured

# Each may do what those before it may: all reads < what its team owns < any server's status < all.
ROLES: Final = ("reader", "publisher", "curator", "admin")
# The team that owns what nobody else does, and that the bootstrap administrator registers for.
DEFAULT_TEAM: Final = "default"
# Of a team's name, in characters.
MAX_TEAM: Final = 63


class Caller(NamedTuple):
    """Who sent a request: `name` is unique (`admin`, `token:<id>`, `oidc:<issuer id>:<subject>`).

    `request_id` and `address` are those of the request, for the audit.
    """

    name: str
    role: str
    team: str
    request_id: str = ""
    address: str = ""

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> Caller:
        """The caller of a request with this context, as API Gateway hands it over.

        The authorizer of the release before told no role, and let in nobody but the bootstrap administrator; its
        answers are remembered for some minutes. Raises NotConfigured where no authorizer was asked, or its answer is
        none.
        """
        told = context.get("authorizer")
        if not told or not told.get("principalId"):
            raise NotConfigured
        role, team = told.get("role", ROLES[-1]), told.get("team", DEFAULT_TEAM)
        if role not in ROLES:
            raise NotConfigured
        address = (context.get("identity") or {}).get("sourceIp") or ""
        return cls(told["principalId"], role, team, context.get("requestId", ""), address)

    def may(self, role: str) -> bool:
        """Whether this caller may do what that role may. Raises ValueError where it is none."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def rules(self) -> bool:
        """Whether the servers of every team are theirs to change."""
        return self.role == ROLES[-1]

    def parameters(self) -> dict[str, Any]:
        """What the statements are told, which decide whose servers this caller may change and write down who it was."""
        return {
            "caller": self.name,
            "caller_role": self.role,
            "caller_team": self.team,
            "caller_rules": self.rules,
            "request_id": self.request_id,
            "address": self.address,
        }


@cache
def parse_routes(table: str) -> dict[str, str]:
    """The least role for each route, `METHOD /path` to role, of a table in the template: `GET /a reader POST /a admin`.

    Raises ValueError where it is no such table.
    """
    words = table.split()
    if len(words) % 3 or not set(words[2::3]) <= set(ROLES):
        raise ValueError("ROLES is METHOD, path and role, over and over")
    routes = zip(words[::3], words[1::3], strict=True)
    return dict(zip(map(" ".join, routes), words[2::3], strict=True))
