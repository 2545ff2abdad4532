"""docs/openapi.yaml says what the code, the template and the tables say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any, get_args

import msgspec
import psycopg
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from local import template
from local.template import Mock, Route, Stack
from mcp_registry import caller, errors
from mcp_registry.access import audit, rules, tokens
from mcp_registry.catalogue import cursor, listing, names, registration
from mcp_registry.edge import front, http, intake
from mcp_registry.errors import RegistryError, ValidationFailed
from mcp_registry.health import history, messages, sweeps
from mcp_registry.ledger import feed, reading
from tests.contract.document import DOCUMENT, ROOT, Json, answers, closed, operations

SCHEMAS: Json = DOCUMENT["components"]["schemas"]
CORPUS = ROOT / "tests" / "corpus"
ONE_SERVER = "/api/registry/servers/{id}"
# What an error's answer may be called by the schema of one response: `code: {const: ...}` or `code: {enum: [...]}`.
Answered = tuple[int, str]


def validator(pointer: str) -> Draft202012Validator:
    """Validates against one place of the document, in which nothing may stand that it does not name."""
    whole = Resource.from_contents(closed(), default_specification=DRAFT202012)
    checker = Draft202012Validator.FORMAT_CHECKER
    registry = Registry().with_resource("urn:openapi", whole)
    return Draft202012Validator({"$ref": f"urn:openapi#{pointer}"}, registry=registry, format_checker=checker)


def schema(name: str) -> Draft202012Validator:
    return validator(f"/components/schemas/{name}")


@pytest.fixture(scope="module")
def stack() -> Stack:
    return template.load(ROOT / "template.yaml", {"DatabaseUrl": "postgresql://"})


# ------------------------------------------------------------------ the document and the template


def test_the_document_is_valid():
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_document_names_no_host_but_the_local_run_and_a_placeholder():
    urls = [server["url"] for server in DOCUMENT["servers"]]
    assert urls == ["http://127.0.0.1:3000", "https://{api_id}.execute-api.{region}.amazonaws.com/{stage}"]


def listed(stack: Stack) -> dict[tuple[str, str], Route]:
    """The routes of the template that the document lists: HEAD it has in words, for it is wherever GET is."""
    return {(route.path, route.method): route for route in stack.api.routes if route.method != "HEAD"}


def test_the_routes_are_those_of_the_template(stack: Stack):
    documented = {(path, method) for path, method, _ in operations()}
    assert documented == listed(stack).keys()
    assert "Wherever there is `GET` there is `HEAD`" in DOCUMENT["info"]["description"]


def test_a_route_asks_for_credentials_exactly_where_the_template_has_the_authorizer(stack: Stack):
    documented = {
        (path, method): bool(operation.get("security", DOCUMENT["security"]))
        for path, method, operation in operations()
    }
    assert documented == {place: route.authorized for place, route in listed(stack).items()}


def test_a_route_answers_401_exactly_where_it_asks_for_credentials_or_the_cron_secret():
    for path, method, operation in operations():
        named = {parameter["name"] for parameter in operation.get("parameters", [])}
        asks = bool(operation.get("security", DOCUMENT["security"])) or "x-cron-secret" in named
        assert ("401" in operation["responses"]) == asks, (method, path)


def test_other_methods_are_refused_in_the_words_of_the_template(stack: Stack):
    refused = {path: response for path, method, status, response in answers() if (method, status) == ("ANY", 405)}
    mocks = {route.path: route.integration for route in stack.api.routes if isinstance(route.integration, Mock)}
    assert refused.keys() == mocks.keys()
    for path, mock in mocks.items():
        assert mock.status == 405
        assert refused[path]["content"]["application/json"]["example"] == json.loads(mock.body)
        assert {name: header["schema"]["const"] for name, header in refused[path]["headers"].items()} == mock.headers


# ------------------------------------------------------------------ errors


def documented_errors() -> set[Answered]:
    """The (status, code) of every error in the document."""
    pairs: set[Answered] = set()
    for path, method, status, response in answers():
        if status >= 400:
            code = response["content"]["application/json"]["schema"]["properties"]["code"]
            assert code.keys() <= {"const", "enum"}, (method, path, status)
            pairs |= {(status, word) for word in code.get("enum", [code.get("const")])}
    return pairs


def gateway_errors(stack: Stack) -> Iterator[tuple[int | None, Json]]:
    """The (status, body) of every gateway response of the template; None for "as API Gateway has it"."""
    for response in stack.api.gateway_responses.values():
        assert response.template is not None
        yield response.status, json.loads(response.template)


def test_the_errors_are_those_that_something_answers(stack: Stack):
    answered = {(int(status), code) for code, status in http.STATUSES.items()}
    answered |= {(status, body["code"]) for status, body in gateway_errors(stack) if status is not None}
    mocks = [route.integration for route in stack.api.routes if isinstance(route.integration, Mock)]
    answered |= {(mock.status, json.loads(mock.body)["code"]) for mock in mocks}
    assert documented_errors() == answered


def test_the_codes_are_those_of_the_errors(stack: Stack):
    codes = SCHEMAS["Error"]["properties"]["code"]["enum"]
    assert len(codes) == len(set(codes))
    assert set(codes) == {code for _, code in documented_errors()}
    # The two catch-alls keep API Gateway's status, so no route can name theirs; their codes must be known even so.
    assert {body["code"] for _, body in gateway_errors(stack)} <= set(codes)


def test_the_table_of_errors_names_each_of_them():
    rows = re.findall(r"^\| ([0-9]{3}) \| `([A-Z_]+)` \|", DOCUMENT["info"]["description"], re.MULTILINE)
    assert sorted((int(status), code) for status, code in rows) == sorted(documented_errors())


def test_the_examples_of_errors_have_the_words_that_are_answered(stack: Stack):
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RegistryError)]
    words = {(each.code, (each.__doc__ or "").partition("\n")[0]) for each in classes}
    words |= {(body["code"], body["error"]) for _, body in gateway_errors(stack)}
    words.add((errors.Forbidden.code, "mcp-server-fetch belongs to the team "))  # what it says begins with the name
    for path, method, status, response in answers():
        if status < 400 or status == 405:
            continue
        for example in examples(response["content"]["application/json"]):
            if example["code"] != "VALIDATION_ERROR":
                known = any(code == example["code"] and example["error"].startswith(text) for code, text in words)
                assert known, (method, path, example)


def test_headers_have_the_values_that_are_sent(stack: Stack):
    headers = DOCUMENT["components"]["headers"]
    assert headers["CacheControl"]["schema"]["const"] == http.HEADERS["Cache-Control"]
    request = http.Request({"httpMethod": "GET", "resource": "/openapi.yaml", "requestContext": {"requestId": "1"}})
    contract = front.contract(request).headers
    assert headers["CacheControlOfContract"]["schema"]["const"] == contract["Cache-Control"]
    assert re.fullmatch(headers["ETag"]["schema"]["pattern"], contract["ETag"])
    assert headers["ContentTypeOptions"]["schema"]["const"] == http.HEADERS["X-Content-Type-Options"]
    unauthorized = stack.api.gateway_responses["UNAUTHORIZED"].headers
    assert unauthorized == {"WWW-Authenticate": headers["Authenticate"]["schema"]["const"]}


def test_a_status_that_asks_for_patience_says_for_how_long(stack: Stack):
    for path, method, status, response in answers():
        code = response["content"]["application/json"]["schema"]["properties"]["code"] if status == 409 else {}
        patient = status in (429, 503) or "HELD_NAME" in code.get("enum", ())
        assert ("Retry-After" in response.get("headers", {})) == patient, (method, path, status)
    for response in stack.api.gateway_responses.values():
        assert ("Retry-After" in response.headers) == (response.status in (429, 503))


# ------------------------------------------------------------------ examples


def examples(media_type: Json) -> list[Any]:
    """The example or the examples of a request or response body."""
    if "example" in media_type:
        return [media_type["example"]]
    return [example["value"] for example in media_type["examples"].values()]


def bodies(node: Any, pointer: str = "") -> Iterator[tuple[str, Json]]:
    """(pointer, media type object) of every JSON body in the document."""
    if isinstance(node, list):
        for place, child in enumerate(node):
            yield from bodies(child, f"{pointer}/{place}")
    elif isinstance(node, dict):
        for key, child in node.items():
            below = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key == "application/json" and "schema" in child:
                yield below, child
            else:
                yield from bodies(child, below)


@pytest.mark.parametrize("pointer", [pointer for pointer, _ in bodies(DOCUMENT)])
def test_every_body_has_an_example_and_its_examples_fit_its_schema(pointer: str):
    media_type = dict(bodies(DOCUMENT))[pointer]
    found = examples(media_type)
    assert found
    for example in found:
        validator(f"{pointer}/schema").validate(example)


def test_the_examples_of_a_started_sweep_have_the_words_that_are_answered():
    answer = DOCUMENT["paths"]["/api/jobs/health-check"]["post"]["responses"]["202"]
    found = {example["result"]: example["message"] for example in examples(answer["content"]["application/json"])}
    assert found == {result: sweeps.MESSAGES[result] for result in ("started", "duplicate")}
    assert set(sweeps.MESSAGES) == set(get_args(sweeps.Outcome))


def test_every_answer_but_an_empty_one_has_a_body():
    for path, method, status, response in answers():
        assert ("content" in response) == (status not in (204, 304)), (method, path, status)


def test_every_example_of_a_parameter_fits_its_schema():
    for path, item in DOCUMENT["paths"].items():
        for owner in (item, *item.values()):
            for parameter in owner.get("parameters", ()) if isinstance(owner, dict) else ():
                if "example" in parameter:
                    Draft202012Validator(parameter["schema"]).validate(parameter["example"])
                assert parameter["description"], (path, parameter["name"])


def test_the_example_of_a_registration_registers():
    for method in ("post", "put"):
        body = DOCUMENT["paths"]["/api/registry/register"][method]["requestBody"]
        for example in examples(body["content"]["application/json"]):
            assert accepted(example)


# ------------------------------------------------------------------ requests: limits


def shape(node: Json, definitions: Json) -> Json:
    """The rules of a schema without its prose: references followed, one form for what may be null.

    Null itself is left out, because no type of the code says that it counts as absent; the corpus and
    `test_null_is_taken_where_the_document_takes_it` hold that.
    """
    if "$ref" in node:
        return shape(definitions[node["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in node:
        (branch,) = (branch for branch in node["anyOf"] if branch != {"type": "null"})
        return shape(branch, definitions)
    rules: Json = {key: node[key] for key in RULES & node.keys()}
    if "type" in node:
        types = node["type"] if isinstance(node["type"], list) else [node["type"]]
        (rules["type"],) = set(types) - {"null"}
    if "enum" in node:
        rules |= {"type": "string", "enum": sorted(node["enum"])}
    if node.get("required"):
        rules["required"] = sorted(node["required"])
    if "properties" in node:
        rules["properties"] = {name: shape(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        rules["items"] = shape(node["items"], definitions)
    return rules


RULES = {
    *("minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "additionalProperties"),
    *("minProperties", "maxProperties"),
    *("x-max-bytes", "x-max-depth"),
}


def code_shape(struct: type[msgspec.Struct]) -> Json:
    """The rules of a struct of mcp_registry.catalogue.registration, those included that its types do not say."""
    _, definitions = msgspec.json.schema_components([struct, registration.Tool])
    tool = definitions["Tool"]
    tool["properties"]["description"]["anyOf"][0] |= {
        "maxLength": registration.MAX_TOOL_DESCRIPTION,
        "x-max-bytes": registration.MAX_TOOL_DESCRIPTION,
    }
    for name in registration.SCHEMAS:
        limits = {"x-max-bytes": registration.MAX_SCHEMA, "x-max-depth": registration.MAX_SCHEMA_DEPTH}
        tool["properties"][name] = {"type": "object", **limits}
    for alias, name in registration.ALIASES.items():
        tool["properties"][alias] = tool["properties"][name]
    # Required in one of two spellings, which is the business of the next test.
    tool["required"].remove("input_schema")
    # Where the fields stand that the struct does not name.
    del tool["properties"]["extra"]
    tool["additionalProperties"] = True
    return shape(definitions[struct.__name__], definitions)


@pytest.mark.parametrize(
    ("name", "struct"),
    [
        ("Registration", registration.Document),
        ("Metadata", registration.Metadata),
        ("Tool", registration.Tool),
        ("Change", registration.Change),
    ],
)
def test_the_limits_of_a_request_are_those_of_the_code(name: str, struct: type[msgspec.Struct]):
    assert shape(SCHEMAS[name], SCHEMAS) == code_shape(struct)


@pytest.mark.parametrize(
    ("name", "struct"), [("TeamSetting", rules.Team), ("Grant", rules.Grant), ("Trust", rules.Trust)]
)
def test_the_limits_of_what_is_sent_about_who_may_call_are_those_of_the_code(name: str, struct: type[msgspec.Struct]):
    _, definitions = msgspec.json.schema_components([struct])
    assert shape(SCHEMAS[name], SCHEMAS) == shape(definitions[struct.__name__], definitions)


def test_the_words_and_forms_of_who_may_call_are_those_of_the_code():
    assert tuple(SCHEMAS["Role"]["enum"]) == caller.ROLES == get_args(rules.Role)
    assert tuple(SCHEMAS["Action"]["enum"]) == audit.ACTIONS
    team, grant, trust = (SCHEMAS[name]["properties"] for name in ("TeamSetting", "Grant", "Trust"))
    assert team["prefixes"]["items"]["pattern"] == f"^{rules.PREFIX.pattern}$"
    places = [grant["team"], trust["team"], parameters("/api/registry/teams/{team}", "get")["team"]]
    places += [parameters("/api/registry/issuers/{id}", "put")["id"]]
    assert {(each["pattern"], each["maxLength"]) for each in places} == {(f"^{rules.NAME.pattern}$", rules.MAX_NAME)}
    assert (grant["team"]["default"], grant["expires_in_days"]["default"]) == (caller.DEFAULT_TEAM, rules.DEFAULT_DAYS)
    token = re.compile(parameters("/api/registry/tokens/{id}", "get")["id"]["pattern"])
    assert token.search(tokens.make().id) and not token.search(tokens.make().id[1:])


@pytest.mark.parametrize("text", ["payments", "a" * 63, "a" * 64, "a-", "-a", "A", "a.b", "", "é"])
def test_a_name_of_a_team_is_taken_as_documented(text: str):
    fits = Draft202012Validator(parameters("/api/registry/teams/{team}", "get")["team"]).is_valid(text)
    if fits:
        assert rules.parse_name({"team": text}, "team") == text
    else:
        with pytest.raises(ValidationFailed):
            rules.parse_name({"team": text}, "team")


def test_the_parameters_of_the_audit_and_of_tokens_are_those_of_the_code():
    of_audit, of_tokens = parameters("/api/registry/audit", "get"), parameters("/api/registry/tokens", "get")
    assert set(of_audit) == set(rules.AuditPage._fields)
    assert set(of_tokens) == set(rules.TokenPage._fields)
    for limit in (of_audit["limit"], of_tokens["limit"]):
        assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, rules.MAX_LIMIT, rules.DEFAULT_LIMIT)
    assert of_audit["after"]["maximum"] == audit.MAX_SEQUENCE == http.MAX_ID
    assert (of_audit["actor"]["maxLength"], of_audit["target"]["maxLength"]) == (audit.MAX_ACTOR, audit.MAX_TARGET)
    assert of_audit["action"]["enum"] == [*audit.ACTIONS, ""]


def test_the_parameters_of_the_ledger_are_those_of_the_code():
    of_all, of_one = parameters("/api/registry/changes", "get"), parameters(f"{ONE_SERVER}/changes", "get")
    assert tuple(of_all) == feed.PARAMETERS
    assert tuple(of_one) == ("id", *feed.OF_ONE)
    for documented in (of_all, of_one):
        assert documented["kind"]["enum"] == [*feed.KINDS, ""]
        assert documented["grade"]["enum"] == [*feed.GRADES, ""]
        assert documented["after"]["maximum"] == http.MAX_ID
        limit = documented["limit"]
        assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, feed.MAX_LIMIT, feed.DEFAULT_LIMIT)
    assert (of_all["server"]["maxLength"], of_all["owner"]["maxLength"]) == (http.MAX_NAME, rules.MAX_NAME)
    of_tools = parameters(f"{ONE_SERVER}/tools", "get")
    assert tuple(of_tools) == ("id", *reading.PARAMETERS)
    assert of_tools["source"]["enum"] == [*reading.SOURCES, ""]
    assert of_tools["after"]["maximum"] == reading.MAX_POSITION
    limit = of_tools["limit"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, reading.MAX_LIMIT, reading.MAX_LIMIT)


def test_the_words_of_a_change_are_those_of_the_code():
    fields = SCHEMAS["LedgerChange"]["properties"]
    assert fields["kind"]["enum"] == [*feed.KINDS]
    assert fields["grade"]["enum"] == [*feed.GRADES, None]
    assert fields["source"]["enum"] == [*reading.SOURCES, None]


def test_a_name_has_the_pattern_of_the_code():
    name = SCHEMAS["Registration"]["properties"]["name"]
    assert name["pattern"] == f"^{names.LEGAL.pattern}$"
    assert name["x-reserved"] == {"names": list(names.RESERVED_WORDS), "namespace": names.RESERVED_NAMESPACE}


def test_what_cannot_be_sent_of_a_tool_is_what_the_code_refuses():
    assert SCHEMAS["Tool"]["propertyNames"] == {"not": {"enum": sorted(registration.SAID_BY_US, reverse=True)}}
    assert SCHEMAS["StoredTool"]["properties"].keys() >= registration.SAID_BY_US


def test_a_body_has_the_limit_of_the_code():
    limits = [operation["requestBody"]["x-max-bytes"] for _, _, operation in operations() if "requestBody" in operation]
    assert set(limits) == {intake.MAX_BODY}


def accepted(document: Json) -> bool:
    """Whether the code takes this as a registration."""
    try:
        registration.parse(document)
    except ValidationFailed:
        return False
    return True


SMALL: Json = {"name": "a", "display_name": "a", "server_type": "mock", "endpoint_url": "http://a"}


def test_a_tool_has_its_schemas_in_one_spelling_each():
    fields = [field for alias in registration.ALIASES.items() for field in alias]
    fits = schema("Registration").is_valid
    for values in product(("absent", None, {}), repeat=len(fields)):
        tool = {"name": "a", **{field: value for field, value in zip(fields, values, strict=True) if value != "absent"}}
        document = {**SMALL, "tools": [tool]}
        assert fits(document) == accepted(document), tool


def test_null_is_taken_where_the_document_takes_it():
    fits = schema("Registration").is_valid
    tool = {"name": "a", "input_schema": {}}
    documents = [{**SMALL, name: None} for name in SCHEMAS["Registration"]["properties"]]
    documents += [{**SMALL, "metadata": {name: None}} for name in SCHEMAS["Metadata"]["properties"]]
    documents += [{**SMALL, "tools": [{**tool, name: None}]} for name in SCHEMAS["Tool"]["properties"]]
    documents += [{**SMALL, "metadata": {"tags": [None]}}, {**SMALL, "tools": [None]}]
    assert [fits(document) for document in documents] == [accepted(document) for document in documents]


def test_a_value_of_another_type_is_refused_where_the_document_refuses_it():
    fits = schema("Registration").is_valid
    tool = {"name": "a", "input_schema": {}}
    for value in (False, True, 0, 1, 1.5, [], [1], [[]], [{}], {}, {"a": 1}, ""):
        documents = [{**SMALL, name: value} for name in SCHEMAS["Registration"]["properties"]]
        documents += [{**SMALL, "metadata": {name: value}} for name in SCHEMAS["Metadata"]["properties"]]
        documents += [{**SMALL, "tools": [{**tool, name: value}]} for name in SCHEMAS["Tool"]["properties"]]
        assert [document for document in documents if accepted(document) and not fits(document)] == []


def corpus() -> Iterator[tuple[str, Any]]:
    """(name, value) of every registration in the corpus, real, odd and refused; None where it is no JSON."""
    for path in sorted(CORPUS.glob("*/*.json")):
        if path.name != "INDEX.json":
            yield f"{path.parent.name}/{path.name}", intake_value(path.read_bytes())
    for name in ("fields", "json_bodies", "stored_output"):
        for case in json.loads((CORPUS / f"{name}.json").read_bytes()):
            body = case["request"].get("body")
            if isinstance(body, str):
                yield case["id"], intake_value(body.encode("utf-8", "surrogatepass"))
    for case in json.loads((CORPUS / "ssrf_urls.json").read_bytes()):
        yield case["id"], {**SMALL, "endpoint_url": case["url"]}
    for case in json.loads((CORPUS / "names.json").read_bytes()):
        yield case["id"], {**SMALL, "name": case["new"]}
    links = (
        "http://a",
        "HTTPS://a:8/b?c#d",
        "git@a:b",
        "git@a://b",
        "",
        "/a",
        "/a?b",
        "//a",
        "/a#b",
        "ftp://a",
        "http://",
    )
    for link in links:
        yield f"health_url {link!r}", {**SMALL, "health_url": link}
        yield f"repository_url {link!r}", {**SMALL, "metadata": {"repository_url": link}}
        yield f"documentation_url {link!r}", {**SMALL, "metadata": {"documentation_url": link}}


def intake_value(body: bytes) -> Any:
    """The JSON value of a body; None where it is no JSON, which no schema can say."""
    try:
        return intake.parse(body)
    except ValidationFailed:
        return None


def test_what_the_code_takes_fits_the_document():
    fits = schema("Registration").is_valid
    assert [name for name, value in corpus() if accepted(value) and not fits(value)] == []


def test_what_the_code_refuses_for_its_form_does_not_fit_the_document():
    fits = schema("Registration").is_valid
    # A schema counts characters and knows no rule between two fields; such rules the document has in words.
    in_words = {"value", "blocked", "repeated", "depth"}
    for name, value in corpus():
        if isinstance(value, dict) and fits(value) and not accepted(value):
            with pytest.raises(ValidationFailed) as caught:
                registration.parse(value)
            kinds = {fault.type for fault in caught.value.faults if "bytes" not in fault.message}
            assert kinds <= in_words, (name, caught.value.faults)


# ------------------------------------------------------------------ requests: parameters


def parameters(path: str, method: str) -> dict[str, Json]:
    item = DOCUMENT["paths"][path]
    found = [*item.get("parameters", ()), *item[method].get("parameters", ())]
    return {parameter["name"]: parameter["schema"] for parameter in found}


def test_the_parameters_of_a_list_are_those_of_the_code():
    documented = parameters("/api/registry/servers", "get")
    assert tuple(documented) == listing.PARAMETERS
    assert documented["status"]["enum"] == [*listing.STATUSES, ""]
    assert documented["verdict"]["enum"] == [*listing.VERDICTS, ""]
    assert documented["type"]["enum"] == [*listing.TYPES, ""]
    assert documented["search"]["maxLength"] == listing.MAX_SEARCH
    assert documented["tag"]["maxLength"] == listing.MAX_TAG == registration.MAX_TAG
    assert documented["cursor"]["maxLength"] == cursor.MAX_LENGTH
    limit = documented["limit"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, listing.MAX_LIMIT, listing.DEFAULT_LIMIT)


@pytest.mark.parametrize("name", ["status", "verdict", "type"])
def test_every_word_of_a_filter_is_taken(name: str):
    for word in parameters("/api/registry/servers", "get")[name]["enum"]:
        listing.parse({name: word})


@pytest.mark.parametrize(
    ("limit", "taken"), [("0", False), ("1", True), ("1000", True), ("1001", False), ("1.5", False)]
)
def test_a_page_has_the_documented_bounds(limit: str, taken: bool):
    schema = parameters("/api/registry/servers", "get")["limit"]
    assert Draft202012Validator(schema).is_valid(json.loads(limit)) == taken
    if taken:
        assert listing.parse({"limit": limit}).limit == int(limit)
    else:
        with pytest.raises(ValidationFailed):
            listing.parse({"limit": limit})


def test_a_search_may_hold_exactly_the_documented_characters():
    pattern = re.compile(parameters("/api/registry/servers", "get")["search"]["pattern"])
    # Surrogates are left out: a URL, which is UTF-8, cannot hold them.
    characters = [chr(point) for point in range(0x10000) if not 0xD800 <= point < 0xE000]
    different = [c for c in characters if bool(pattern.search(f"a{c}b")) == bool(listing.UNSEARCHABLE.search(c))]
    assert different == []


def test_an_id_has_the_range_of_the_column():
    number, name = parameters("/api/registry/servers/{id}", "get")["id"]["anyOf"]
    assert (number["minimum"], number["maximum"]) == (1, http.MAX_ID)
    assert name["maxLength"] == http.MAX_NAME == names.MAX_LENGTH
    assert (SCHEMAS["Id"]["minimum"], SCHEMAS["Id"]["maximum"]) == (1, http.MAX_ID)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 64, "0" * 65, "aF" * 32, "g" * 64, "0" * 63 + "\u0660"])
def test_a_digest_has_the_form_that_the_code_takes(digest: str):
    pattern = parameters("/api/registry/register", "put")["X-Registration-Digest"]["pattern"]
    if re.search(pattern, digest):
        assert registration.parse_digest(digest) == bytes.fromhex(digest)
    else:
        with pytest.raises(ValidationFailed):
            registration.parse_digest(digest)


def test_a_cursor_has_the_documented_form():
    schema = parameters("/api/registry/servers", "get")["cursor"]
    emoji = "\U0001f600"
    longest = cursor.Filters(
        "inactive", "community", emoji * listing.MAX_SEARCH, emoji * listing.MAX_TAG, "http_error", "a" * 63
    )
    for filters in (cursor.Filters(), longest):
        Draft202012Validator(schema).validate(cursor.encode(http.MAX_ID, filters))


# ------------------------------------------------------------------ tables


@pytest.fixture(scope="module")
def columns(database_url: str) -> dict[str, dict[str, tuple[int | None, bool, str]]]:
    """Length, whether it may be null, and type of every column of the catalogue, by table."""
    statement = """
        SELECT table_name, column_name, character_maximum_length, is_nullable = 'YES', udt_name
          FROM information_schema.columns
         WHERE table_schema = 'registry'
    """
    tables: dict[str, dict[str, tuple[int | None, bool, str]]] = {}
    with psycopg.connect(database_url) as connection:
        for table, column, length, nullable, kind in connection.execute(statement):
            tables.setdefault(table, {})[column] = (length, nullable, kind)
    return tables


# What an answer shows of a table, and what of the table it does not show.
SENT = (
    ("Registration", "mcp_servers"),
    ("Metadata", "server_metadata"),
    ("Tool", "tools"),
    ("TeamSetting", "teams"),
    ("Grant", "tokens"),
    ("Trust", "issuers"),
)
SHOWN = (
    (
        "ServerDetail",
        "mcp_servers",
        {"verdict", "frozen", "checked_at", "announced_at", "last_check", "auth", "observed", "endpoints"}
        | {"metadata", "review", "tools"},
    ),
    ("Check", "endpoint_health", set[str]()),
    ("Endpoint", "endpoints", {"status", "verdict", "last_check", "evidence"}),
    ("StoredMetadata", "server_metadata", set[str]()),
    ("StoredTool", "tools", set[str]()),
    ("TeamListItem", "teams", {"prefixes", "servers"}),
    ("Team", "teams", {"prefixes", "servers", "members"}),
    ("Token", "tokens", set[str]()),
    ("TrustedIssuer", "issuers", set[str]()),
    ("AuditEntry", "audit", {"sequence", "at"}),
)
INTERNAL = {
    *("canonical_name", "name_key", "look_key", "figure_key", "search_text", "search_fold", "tags_fold"),
    *("tools_count", "bytes", "revision", "body_digest", "content_digest", "extra"),
    *("server_id", "position", "moved_at", "up_at"),
    *("ledger_digest", "seen_digest"),
    *("endpoint_id", "offer_digest", "ask_again_at", "was", "introduce_at", "visited_at", "pulse", "learnt_at"),
}
# What an answer does not show of each endpoint. Some of it is told of the server, of the endpoint that it has.
NOT_OF_EACH = {
    # By other names: sequence, at. The transaction is nobody's business.
    "AuditEntry": {"id", "occurred_at"},
    "Token": {"digest"},
    "Endpoint": {"id", "created_at", "era", "introduced_at", "introduction", "auth"},
}
# What is handed out under a policy is no row of the table.
NULL_UNDER_A_POLICY = {"StoredTool": ("id", "created_at")}


@pytest.mark.parametrize(("name", "table"), SENT)
def test_a_column_is_as_wide_as_what_may_be_sent(name: str, table: str, columns: Any):
    properties = SCHEMAS[name]["properties"]
    documented = {
        field: rules["maxLength"]
        for field, rules in properties.items()
        # A column of type text has no width; what limits these is their size in bytes.
        if "maxLength" in rules and "x-max-bytes" not in rules
    }
    widths = {column: length for column, (length, _, _) in columns[table].items() if length and column in properties}
    assert documented == widths


@pytest.mark.parametrize(("name", "table", "joined"), SHOWN)
def test_an_answer_shows_every_column_and_says_which_may_be_null(name: str, table: str, joined: set[str], columns: Any):
    hidden = INTERNAL | NOT_OF_EACH.get(name, set())
    nullable = {column: null for column, (_, null, _) in columns[table].items() if column not in hidden}
    documented = {
        field: validator(f"/components/schemas/{name}/properties/{field}").is_valid(None)
        for field in SCHEMAS[name]["properties"].keys() - joined
    }
    assert documented == nullable | dict.fromkeys(NULL_UNDER_A_POLICY.get(name, ()), True)
    assert set(SCHEMAS[name]["required"]) == SCHEMAS[name]["properties"].keys()


def test_the_verdicts_are_those_of_the_type_and_the_messages(database_url: str):
    with psycopg.connect(database_url) as connection:
        labels = [r for (r,) in connection.execute("SELECT unnest(enum_range(NULL::metrics.verdict))::text")]
    # In the order of the type what came later stands last.
    assert SCHEMAS["Verdict"]["enum"] == list(get_args(messages.Verdict))
    assert sorted(labels) == sorted(SCHEMAS["Verdict"]["enum"])
    assert SCHEMAS["ServerVerdict"]["enum"] == [*SCHEMAS["Verdict"]["enum"], "unknown"] == list(listing.VERDICTS)


def test_the_periods_of_a_history_are_those_of_the_code():
    documented = parameters("/api/registry/servers/{id}/health", "get")["period"]
    assert documented["enum"] == SCHEMAS["ServerHealth"]["properties"]["period"]["enum"] == [*history.PERIODS]
    assert documented["default"] == history.DEFAULT_PERIOD


@pytest.mark.parametrize(
    ("name", "kind"), [("Status", "server_status"), ("ServerType", "server_type"), ("Role", "role")]
)
def test_the_words_of_a_column_are_those_of_the_document_and_the_code(name: str, kind: str, database_url: str):
    statement = "SELECT enumlabel FROM pg_enum WHERE enumtypid = %s::regtype"
    with psycopg.connect(database_url) as connection:
        labels = [label for (label,) in connection.execute(statement, [f"registry.{kind}"])]
    code = {"server_status": listing.STATUSES, "server_type": listing.TYPES, "role": caller.ROLES}[kind]
    assert sorted(SCHEMAS[name]["enum"]) == sorted(labels) == sorted(code)
