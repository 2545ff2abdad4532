"""What stands at the front door, for whoever comes without credentials: where to go on, and the contract."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from mcp_registry.edge.http import Request, Response

# In the repository a link to docs/openapi.yaml, in place of which `sam build` puts the document into the layer.
CONTRACT = Path(__file__).parent.parent / "openapi.yaml"


def pointer(request: Request) -> Response:
    """What this is, and where it goes on: paths on the host that was asked, behind its stage where it has one."""
    root = request.whole_path.rstrip("/")
    return Response(
        {
            "name": "MCP Registry",
            "description": "A private registry of MCP servers. Its routes are in the contract, openapi.",
            "openapi": f"{root}/openapi.yaml",
            "health": f"{root}/health",
            "servers": f"{root}/api/registry/servers",
        }
    )


def contract(request: Request) -> Response:
    """The OpenAPI document; 304 for whoever has it already."""
    text, tag = _contract()
    # To be kept, unlike the catalogue, and asked for again before it is used: it changes with a deployment.
    headers = {"Content-Type": "application/yaml", "Cache-Control": "no-cache", "ETag": tag}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response("", HTTPStatus.NOT_MODIFIED, headers)
    return Response(text, headers=headers)


@cache
def _contract() -> tuple[str, str]:
    """The document and its entity tag."""
    document = CONTRACT.read_bytes()
    return document.decode(), f'"{sha256(document).hexdigest()[:32]}"'
