"""A registration: the document that a server sends, its rules, and its two digests. Owns msgspec, with `canonical`.

Every limit stands here once; the table repeats it and a test compares them. Real servers decide what is valid: tools
may be missing, a description may be, null is as good as absent, and the spelling of MCP (`inputSchema`) is taken too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from mcp_registry import forms
from mcp_registry.caller import MAX_TEAM
from mcp_registry.catalogue import names
from mcp_registry.catalogue.canonical import digest, survey
from mcp_registry.dial import guard, urls
from mcp_registry.errors import Fault, ValidationFailed

MAX_TOOLS = 2_000
MAX_TOOL_DESCRIPTION = 64 * 1024  # bytes of UTF-8
MAX_SCHEMA = 256 * 1024  # bytes of compact JSON in UTF-8
MAX_SCHEMA_DEPTH = 64

# MCP's spelling of a tool's fields, and ours.
ALIASES = {"inputSchema": "input_schema", "outputSchema": "output_schema"}
SCHEMAS = ("input_schema", "output_schema", "annotations")
# What the registry itself says of a tool: a client that posts what it has read cannot mean these.
SAID_BY_US = frozenset({"id", "created_at"})

MAX_TAGS = 64
MAX_TAG = 64

# Where a server is asked: what two endpoints of one server need not have in common.
ADDRESSES = ("endpoint_url", "health_url")

# For how many seconds an endpoint that announces itself may be counted on.
MIN_LEASE = 60
MAX_LEASE = 3_600

Url = Annotated[str, Meta(max_length=urls.MAX_LENGTH)]


class Tool(Struct, forbid_unknown_fields=True, kw_only=True):
    """One tool, as MCP's tools/list describes it, with our `category`.

    `extra` is made by `_normalised`: the fields that MCP has or will have besides these, as they were sent.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    annotations: dict[str, Any] | None = None
    category: Annotated[str, Meta(max_length=50)] | None = None
    extra: dict[str, Any] | None = None


# The fields of a tool that have rules of their own.
TOOL_FIELDS = frozenset(Tool.__struct_fields__) - {"extra"}


class Metadata(Struct, forbid_unknown_fields=True, kw_only=True):
    """Who made a server and where to read about it."""

    author: Annotated[str, Meta(max_length=200)] | None = None
    repository_url: Url | None = None
    documentation_url: Url | None = None
    tags: Annotated[list[Annotated[str, Meta(max_length=MAX_TAG)]], Meta(max_length=MAX_TAGS)] | None = None


class Document(Struct, forbid_unknown_fields=True, kw_only=True):
    """The fields of a registration."""

    name: Annotated[str, Meta(min_length=1, max_length=names.MAX_LENGTH)]
    display_name: Annotated[str, Meta(min_length=1, max_length=200)]
    description: str | None = None
    server_type: Literal["official", "community", "mock"]
    endpoint_url: Url
    health_url: Url | None = None
    version: Annotated[str, Meta(max_length=255)] | None = None
    metadata: Metadata | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] = []


class Change(Struct, forbid_unknown_fields=True, kw_only=True):
    """What an operator may change of a server."""

    status: Literal["active", "inactive"]


class Transfer(Struct, forbid_unknown_fields=True, kw_only=True):
    """To whom a server is to belong."""

    team: Annotated[str, Meta(min_length=1, max_length=MAX_TEAM)]


class Registration:
    """A valid registration."""

    def __init__(self, sent: dict[str, Any], normal: dict[str, Any], document: Document, *, plain: bool) -> None:
        """`sent`: the JSON object that came in; `normal`: the same in one spelling; `document`: the same, typed.

        `plain` is what `canonical.survey` says of it.
        """
        self._sent = sent
        self._normal = normal
        self._plain = plain
        self.document = document
        # The tools as a JSON array in our spelling, each with its `position` in the list.
        self.tools_json = _json([{**tool, "position": place} for place, tool in enumerate(normal.get("tools", ()))])
        # Bytes of what has no small limit of its own, the tools and the description: what a quota counts.
        self.size = len(self.tools_json.encode()) + len((document.description or "").encode())

    @property
    def name_keys(self) -> names.Keys:
        """What the name is unique by."""
        return names.keys(self.document.name)

    def check_new(self) -> None:
        """Raise ValidationFailed where this may replace a server of its name, but not add one."""
        if fault := names.number_fault(self.document.name):
            raise ValidationFailed(faults=[Fault("name", fault, "value")])

    @cached_property
    def body_digest(self) -> bytes:
        """SHA-256 of the registration as it was sent (RFC 8785): what a client can compute too."""
        return digest(self._sent, plain=self._plain)

    @cached_property
    def offer_digest(self) -> bytes:
        """SHA-256 of what a server offers, wherever it answers: equal for two spellings and two orders of the tools."""
        offer = {field: value for field, value in self._normal.items() if field not in ADDRESSES}
        offer["tools"] = sorted(self._normal.get("tools", ()), key=lambda tool: tool["name"])
        return digest(offer, plain=self._plain)

    @property
    def tags_json(self) -> str | None:
        """The tags of the metadata as a JSON array."""
        metadata = self.document.metadata
        return None if metadata is None or metadata.tags is None else _json(metadata.tags)


def parse(value: Any) -> Registration:
    """Check a JSON value and return it as a registration.

    Raises ValidationFailed with every fault that was found, each with its path.
    """
    if not isinstance(value, dict):
        raise ValidationFailed("A registration is a JSON object")
    normal, faults = _normalised(value)
    try:
        document = msgspec.convert(normal, Document)
    except msgspec.ValidationError:
        # msgspec stops at the first fault. A person wants them all, and this path has the time.
        raise ValidationFailed(faults=[*faults, *forms.faults(normal, Document)]) from None
    if faults:
        raise ValidationFailed(faults=faults)
    found = survey(value)
    # Where the whole is not nested too deeply, no schema in it is.
    depth_faults = _depth_faults(document.tools) if found.depth > MAX_SCHEMA_DEPTH else ()
    if faults := [*_field_faults(document), *_tool_faults(document.tools), *depth_faults]:
        raise ValidationFailed(faults=faults)
    registration = Registration(value, normal, document, plain=found.plain)
    # Only where the tools together are longer than one schema may be can one of them be.
    if registration.size > MAX_SCHEMA and (faults := [*_size_faults(document.tools)]):
        raise ValidationFailed(faults=faults)
    return registration


def guarded(registration: Registration) -> Registration:
    """The registration itself, where its endpoint's name leads to no address that is closed. Raises ValidationFailed.

    Apart from `parse`, because it asks a resolver and may take its second: it comes once all else is right.
    """
    fault = guard.look_up_fault(registration.document.endpoint_url, guard.policy())
    if fault:
        raise ValidationFailed(faults=[Fault("endpoint_url", fault, "blocked")])
    return registration


def parse_digest(header: str) -> bytes:
    """The 32 bytes of an X-Registration-Digest header. Raises ValidationFailed where it is not SHA-256 in hex."""
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", header):
        raise ValidationFailed("X-Registration-Digest is a SHA-256 in 64 hexadecimal digits")
    return bytes.fromhex(header)


def parse_lease(header: str | None) -> int | None:
    """The seconds of an X-Registration-Lease header; None where there is none. Raises ValidationFailed."""
    if header is None:
        return None
    if not re.fullmatch(r"[0-9]{2,4}", header) or not MIN_LEASE <= int(header) <= MAX_LEASE:
        raise ValidationFailed(f"X-Registration-Lease is a number of seconds from {MIN_LEASE} to {MAX_LEASE}")
    return int(header)


def parse_change(value: Any) -> Change:
    """Check a JSON value and return it as a change. Raises ValidationFailed with every fault that was found."""
    try:
        return msgspec.convert(value, Change)
    except msgspec.ValidationError:
        raise ValidationFailed(faults=forms.faults(value, Change)) from None


def parse_transfer(value: Any) -> Transfer:
    """Check a JSON value and return it as a transfer. Raises ValidationFailed with every fault that was found."""
    try:
        return msgspec.convert(value, Transfer)
    except msgspec.ValidationError:
        raise ValidationFailed(faults=forms.faults(value, Transfer)) from None


def _normalised(value: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """One spelling: null is absent, an empty link is absent, a tool's fields have our names or stand in `extra`."""
    faults: list[Fault] = []
    normal = forms.present(value)
    if normal.get("health_url") == "":
        del normal["health_url"]
    if isinstance(metadata := normal.get("metadata"), dict):
        links = ("repository_url", "documentation_url")
        normal["metadata"] = {k: v for k, v in forms.present(metadata).items() if v != "" or k not in links}
    if isinstance(tools := normal.get("tools"), list):
        normal["tools"] = [
            _normalised_tool(tool, f"tools.{place}", faults) if isinstance(tool, dict) else tool
            for place, tool in enumerate(tools)
        ]
    return normal, faults


def _normalised_tool(sent: dict[str, Any], path: str, faults: list[Fault]) -> dict[str, Any]:
    if sent.keys() <= TOOL_FIELDS:  # as our own client sends it
        return forms.present(sent)
    tool: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in sent.items():
        if key in SAID_BY_US:
            faults.append(Fault(f"{path}.{key}", "The registry itself says this of a tool", "unknown"))
        elif (field := ALIASES.get(key, key)) not in TOOL_FIELDS:
            extra[key] = value  # null too: what it means there is not for us to say
        elif value is not None:
            if field != key and sent.get(field) is not None:
                faults.append(Fault(f"{path}.{key}", f"Given as {field} too", "repeated"))
            tool[field] = value
    if extra:
        tool["extra"] = extra
    return tool


def _field_faults(document: Document) -> Iterator[Fault]:
    """What types and lengths do not say of the fields besides the tools."""
    metadata = document.metadata or Metadata()
    checks = {
        "name": names.fault(document.name),
        "endpoint_url": urls.endpoint_fault(document.endpoint_url),
        "metadata.repository_url": metadata.repository_url and urls.repository_fault(metadata.repository_url),
        "metadata.documentation_url": metadata.documentation_url and urls.link_fault(metadata.documentation_url),
    }
    if document.health_url is not None and not checks["endpoint_url"]:
        checks["health_url"] = urls.health_fault(document.health_url, document.endpoint_url)
    for path, message in checks.items():
        if message:
            yield Fault(path, message, "value")
    # The links of the metadata are shown, not dialled. The health URL has the endpoint's host, but a port of its own.
    dialled = {"endpoint_url": document.endpoint_url}
    if document.health_url and not document.health_url.startswith("/"):
        dialled["health_url"] = document.health_url
    for path, url in dialled.items():
        if checks.get(path, "") is None and (message := guard.policy().url_fault(url)):
            yield Fault(path, message, "blocked")
            return


def _tool_faults(tools: list[Tool]) -> Iterator[Fault]:
    """What types and lengths do not say of the tools."""
    first: dict[str, int] = {}
    for place, tool in enumerate(tools):
        path = f"tools.{place}"
        if first.setdefault(tool.name, place) != place:
            yield Fault(f"{path}.name", f"The same name as tools.{first[tool.name]}", "repeated")
        # A character is four bytes at most.
        if tool.description and len(tool.description) * 4 > MAX_TOOL_DESCRIPTION < len(tool.description.encode()):
            yield Fault(f"{path}.description", f"Longer than {MAX_TOOL_DESCRIPTION} bytes of UTF-8", "length")


def _depth_faults(tools: list[Tool]) -> Iterator[Fault]:
    """Schemas that are nested too deeply."""
    for place, tool in enumerate(tools):
        for path, schema in _kept_as_sent(tool, f"tools.{place}"):
            if survey(schema).depth > MAX_SCHEMA_DEPTH:
                yield Fault(path, f"Nested more than {MAX_SCHEMA_DEPTH} levels deep", "depth")


def _size_faults(tools: list[Tool]) -> Iterator[Fault]:
    """Schemas that are too long. Not for schemas that may be nested too deeply to be written."""
    for place, tool in enumerate(tools):
        for path, schema in _kept_as_sent(tool, f"tools.{place}"):
            if len(_json(schema).encode()) > MAX_SCHEMA:
                yield Fault(path, f"Longer than {MAX_SCHEMA} bytes of JSON", "length")


def _kept_as_sent(tool: Tool, path: str) -> Iterator[tuple[str, Any]]:
    """What of a tool is kept as it was sent, with the path of each: its schemas, and each field besides ours."""
    for field in SCHEMAS:
        if (schema := getattr(tool, field)) is not None:
            yield f"{path}.{field}", schema
    for field, value in (tool.extra or {}).items():
        yield f"{path}.{field}", value


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
