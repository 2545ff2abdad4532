"""docs/openapi.yaml, as the contract tests read it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
DOCUMENT: Json = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8"))

METHODS = ("get", "post", "put", "patch", "delete")
# API Gateway's own word for the methods of a path that nothing else answers.
ANY_METHOD = "x-amazon-apigateway-any-method"


def resolved(node: Json) -> Json:
    """`node` with what it refers to, its own words above those; any other node as it is."""
    if "$ref" not in node:
        return node
    target: Any = DOCUMENT
    for key in node["$ref"].removeprefix("#/").split("/"):
        target = target[key.replace("~1", "/").replace("~0", "~")]
    return {**resolved(target), **{key: value for key, value in node.items() if key != "$ref"}}


def operations() -> Iterator[tuple[str, str, Json]]:
    """(path, method, operation) of everything the document says is answered; the method ANY for the rest of a path."""
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method.upper(), item[method]
        if ANY_METHOD in item:
            yield path, "ANY", item[ANY_METHOD]


def answers() -> Iterator[tuple[str, str, int, Json]]:
    """(path, method, status, response) of every answer in the document."""
    for path, method, operation in operations():
        for status, response in operation["responses"].items():
            yield path, method, int(status), resolved(response)


def closed() -> Json:
    """The document with no room in its schemas for fields that it does not name, but where it gives some.

    To clients it promises that answers may gain fields; here a field that it does not name is one that was forgotten.
    """
    document = deepcopy(DOCUMENT)
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document
