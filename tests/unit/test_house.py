"""The house rules: who may import what, who owns which library, how long a handler is, what a cold start loads."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_registry.edge.http import STATUSES
from mcp_registry.errors import RegistryError
from tests.conftest import FLEET, LONGEST, ROOT, shift

PACKAGE = ROOT / "layers" / "registry" / "mcp_registry"
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))
DEPLOYED = [*PACKAGE.rglob("*.py"), *(ROOT / "functions").glob("*/*.py"), *(ROOT / "sql").glob("*.py")]
ALL = [
    path
    for folder in ("functions", "layers", "sql", "local", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
]

# The rooms of the package, floor by floor from the ground up: each uses those of lower floors only, so that no two need
# each other.
FLOORS = (
    {"errors", "dial"},
    {"aws", "caller", "forms"},
    {"edge", "catalogue", "access"},
    {"health"},
    {"ledger"},
)
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

# One library, one owner.
OWNERS = {
    "_sha2": {"access.tokens"},  # a module of Python 3.13, which these tests may be older than
    "aws_lambda_powertools": {"aws.observability"},
    "aiodns": {"dial.lookup"},
    "boto3": {"aws.events", "aws.queues", "aws.secret"},
    "botocore": {"aws.events", "aws.queues", "aws.secret"},
    "jwt": {"access.issuers"},
    "msgspec": {
        *("forms", "access.rules", "catalogue.canonical", "catalogue.registration", "health.messages"),
        "ledger.approvals",
    },
    "snapshot_restore_py": {"aws.db"},
    "psycopg": {"aws.db", "health.introductions", "health.results", "health.sweeps", "ledger.recording"},
    "uvloop": {"health.probe"},
}
MAX_HANDLER_LINES = 30

# What reads JSON, and what each of them raises. The tests and benchmarks, which are not among the files that are looked
# at, read what they have written themselves.
SHIPPED = [*DEPLOYED, *(ROOT / "local").rglob("*.py"), *(ROOT / "client" / "src").rglob("*.py")]
READERS = {"json.load", "json.loads", "msgspec.json.decode"}
FAILURES = {"ValueError", "RecursionError"}
UNSEEN = {"json.JSONDecoder", "msgspec.json.Decoder", "msgspec.json.decode_lines"}
# Where no stranger writes the text: it is AWS's Secrets Manager's, or our own statement's.
OUR_OWN_JSON = {
    "layers/registry/mcp_registry/aws/signature.py",  # what Lambda answers to its own function
    "layers/registry/mcp_registry/aws/secret.py",
    "layers/registry/mcp_registry/catalogue/offers.py",  # one string, of what a column of type json holds
    "layers/registry/mcp_registry/health/sweeps.py",
    "layers/registry/mcp_registry/ledger/recording.py",  # documents, as it wrote them
    "local/credentials.py",
}

# What a cold start of each function loads of the package and of others' libraries. Each module is paid for in
# milliseconds at every cold start: adding one here is a decision.
EDGE = {"errors", "caller", "edge.http", "aws.observability", "aws.db"}
READ = EDGE | {"catalogue.servers", "catalogue.cursor", "catalogue.folding", "catalogue.offers"}
RULES = {"forms", "catalogue.registration", "catalogue.names", "catalogue.canonical", "dial.guard", "dial.urls"}
WRITE = READ | RULES | {"edge.intake", "health.announcing"}
BACKGROUND = {"errors", "aws.observability", "edge.background"}
DOOR = {"access.admission", "access.auth", "access.limits", "access.tokens"}
LOGGER = {"aws_lambda_powertools", "jmespath"}
POSTGRES = LOGGER | {"psycopg", "psycopg_binary"}
SQS = {"boto3", "dateutil", "s3transfer", "six", "urllib3"}
# The authorizer has boto3 loaded before the first request, where its credentials are in a secret.
SECRET = {
    "REGISTRY_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x",
    "AWS_DEFAULT_REGION": "eu-west-1",
}
COLD_START = {
    # Neither pays for the way to who knows the tokens before one comes.
    "authorizer": (DOOR, set()),
    "authorizer, with a secret": (DOOR | {"aws.secret", "errors"}, SQS | {"jmespath"}),
    "identify": (BACKGROUND | {"access.identity", "aws.db"}, POSTGRES),
    # Neither pays for the way to SQS before somebody is to be introduced.
    "register": (WRITE, POSTGRES | {"msgspec"}),
    "update": (WRITE, POSTGRES | {"msgspec"}),
    "list": (READ | {"catalogue.listing"}, POSTGRES),
    "detail": (READ, POSTGRES),
    "delete": (READ, POSTGRES),
    "transfer": (READ | RULES | {"edge.intake"}, POSTGRES | {"msgspec"}),
    "health": (EDGE, POSTGRES),
    "history": (READ | {"health.history"}, POSTGRES),
    "access": (
        EDGE
        | {"forms", "dial.guard", "dial.urls", "edge.intake"}
        | {f"access.{module}" for module in ("audit", "auth", "credentials", "rules", "teams", "tokens", "trust")},
        POSTGRES | {"msgspec"},
    ),
    # Nor does this one pay for the way to SQS before somebody is to be looked at.
    "ledger": (
        READ
        | {"edge.intake", "health.announcing"}
        | {"forms", "dial.guard", "dial.urls"}
        | {f"access.{module}" for module in ("audit", "auth", "rules", "tokens")}
        | {f"ledger.{module}" for module in ("approvals", "feed", "query", "reading")},
        POSTGRES | {"msgspec"},
    ),
    # No database: this one answers who knows no credentials.
    "front": ({"errors", "caller", "edge.front", "edge.http", "aws.observability"}, LOGGER),
    "metrics": (EDGE | {"health.history"}, POSTGRES),
    "start_sweep": (
        EDGE | {"access.auth", "aws.queues", "health.messages", "health.sweeps"},
        POSTGRES | SQS | {"msgspec"},
    ),
    "health_check": (
        BACKGROUND | {"aws.db", "aws.queues", "health.invitations", "health.messages", "health.sweeps"},
        POSTGRES | SQS | {"msgspec"},
    ),
    # No database: this one dials what strangers registered.
    "health_sweep": (
        BACKGROUND
        | {"aws.queues", "dial.guard", "dial.urls", "dial.exchange", "dial.lookup", "dial.reach"}
        | {"dial.introduction", "dial.kinds", "dial.reply"}
        | {"health.messages", "health.shard", "health.probe", "health.asking", "health.pulse"},
        LOGGER | SQS | {"msgspec", "aiodns", "pycares", "uvloop"},
    ),
    # Nor has this one.
    "introduce": (
        BACKGROUND
        | {"aws.queues", "aws.secret", "dial.guard", "dial.urls", "dial.exchange", "dial.lookup", "dial.reach"}
        | {"dial.introduction", "dial.kinds", "dial.reply", "catalogue.canonical", "catalogue.fingerprint"}
        | {
            "health.headers",
            "health.asking",
            "health.learning",
            "health.messages",
            "health.probe",
            "health.pulse",
            "health.visits",
        },
        LOGGER | SQS | {"msgspec", "aiodns", "pycares", "uvloop"},
    ),
    # Nor has this one, which keeps the headers that the one before reads.
    "probe_headers": (
        {"errors", "caller", "edge.http", "edge.background", "edge.intake", "aws.observability"}
        | {"aws.invoke", "aws.secret", "aws.signature", "dial.urls", "health.headers", "health.probe_headers"},
        LOGGER | SQS,
    ),
    "mark": ((READ | {"access.audit", "edge.background", "health.marks"}) - {"edge.http"}, POSTGRES),
    "remember": (
        BACKGROUND
        | {"aws.db", "catalogue.canonical", "catalogue.fingerprint", "catalogue.folding", "catalogue.offers"}
        | {"health.introductions", "health.messages", "health.results"}
        | {"ledger.grades", "ledger.policies", "ledger.recording", "ledger.schemas"},
        POSTGRES | {"msgspec"},
    ),
    "health_write": (BACKGROUND | {"aws.db", "health.messages", "health.results"}, POSTGRES | {"msgspec"}),
    "publish": (BACKGROUND | {"aws.db", "aws.events", "ledger.publishing"}, POSTGRES | SQS),
    "maintain": (BACKGROUND | {"aws.db", "health.maintenance", "ledger.keeping"}, POSTGRES),
}
# Small: what the libraries above bring along. Of botocore, Powertools reads the empty top only, to learn whether it
# is installed; its sessions and clients are what costs 275 ms.
# And what boto3 and the resolver use where it happens to be installed, as it is for the tests and not in the layer;
# cryptography is there, but not pyOpenSSL, by way of which boto3 finds it (tests/integration/test_build.py).
INCIDENTAL = {"typing_extensions", "cython_runtime", "botocore"} | {
    "OpenSSL",
    "awscrt",
    "certifi",
    "cryptography",
    "idna",
}


def imports(path: Path) -> set[str]:
    """The modules that a file names in imports, wherever they stand, but for those only a type checker sees."""
    found: set[str] = set()
    hidden: set[ast.AST] = set()
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            hidden |= {inner for statement in node.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_deployed_imports_what_is_not(path):
    assert not top(imports(path)) & {"local", "tests", "benchmarks", "client", "app"}


@pytest.mark.parametrize("path", sorted((ROOT / "client" / "src").rglob("*.py")), ids=lambda path: path.name)
def test_the_client_knows_the_api_and_nothing_else_of_this_repository(path):
    optional = {"botocore"} if path.name == "_aws.py" else set()  # which whoever needs it has
    assert top(imports(path)) <= set(sys.stdlib_module_names) | {"mcp_registry_client"} | optional


def room(path: Path) -> str:
    """The room that a file of the package is in, or the module that it is where it stands in none."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_has_its_floor_and_none_is_empty():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert set().union(*FLOORS) == ROOMS | modules
    assert all(len(list((PACKAGE / name).glob("*.py"))) > 1 for name in ROOMS)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_needs_its_own_room_and_lower_floors_only(path):
    if path.parent == PACKAGE and path.stem == "__init__":
        assert not imports(path) & ROOMS
        return
    # `from mcp_registry import x` names no room by itself: each import names the module that it wants.
    needed = {name.split(".")[1] for name in imports(path) if name.startswith("mcp_registry.")} - {room(path)}
    assert [name for name in sorted(needed) if floor(name) >= floor(room(path))] == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_library_is_imported_by_its_owner_only(path):
    ours = top(imports(path)) - set(sys.stdlib_module_names) - {"mcp_registry"}
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    assert {library for library in ours if module not in OWNERS.get(library, set())} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "functions").glob("*/app.py")), ids=lambda path: path.parent.name)
def test_a_function_imports_the_package_and_the_standard_library_only(path):
    assert top(imports(path)) <= set(sys.stdlib_module_names) | {"mcp_registry"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_one_thin_handler(name):
    folder = ROOT / "functions" / name
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == ["app.py"]
    tree = ast.parse((folder / "app.py").read_text())
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign)]
    names = [ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else node.name for node in defined]
    # One handler; a function that two kinds of event start has an inner one for each.
    assert [handler for handler in names if not handler.startswith("_")] == ["lambda_handler"]
    assert sum((node.end_lineno or 0) - node.lineno + 1 for node in defined) < MAX_HANDLER_LINES


def test_every_function_has_its_cold_start_stated():
    assert set(COLD_START) == {*FUNCTIONS, "authorizer, with a secret"}


@pytest.mark.parametrize("name", COLD_START)
def test_a_cold_start_loads_what_is_stated_and_nothing_else(name):
    # What an interpreter loads by itself differs from one to another: Debian's has a sitecustomize.
    script = "import json, sys; bare = {*sys.modules}; import app; print(json.dumps(sorted({*sys.modules} - bare)))"
    function, _, with_secret = name.partition(", ")
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "functions" / function), str(PACKAGE.parent)]),
        "POWERTOOLS_SERVICE_NAME": "test",
        **(SECRET if with_secret else {}),
    }
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    loaded = {module for module in json.loads(output) if not module.startswith("_")}
    ours = {module.removeprefix("mcp_registry.") for module in loaded if module.startswith("mcp_registry.")} - ROOMS
    theirs = top(loaded) - set(sys.stdlib_module_names) - {"app", "mcp_registry"} - INCIDENTAL
    assert (ours, theirs) == COLD_START[name]
    assert "boto3" in theirs or "botocore.session" not in loaded


def test_the_authorizer_loads_nothing_that_is_written_in_python_but_ours():
    """It stands before every request's cold start, and `typing` alone takes as long as all of it may."""
    script = """
import sys
bare = {*sys.modules}
sys.path[:0] = sys.argv[1:]
import app
print(*(name for name in {*sys.modules} - bare if str(getattr(sys.modules[name], "__file__", "")).endswith(".py")))
"""
    command = [sys.executable, "-I", "-c", script, str(ROOT / "functions" / "authorizer"), str(PACKAGE.parent)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if not name.startswith("mcp_registry")} == {"app", "__future__"}


def unnamed(tree: ast.Module) -> list[int]:
    """The lines where JSON is read, and not both of its failures are named by what stands around that.

    One is a text that is no JSON, the other one that is nested more deeply than its reader goes.
    """
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: list[int] = []

    def names(kind: ast.AST | None) -> set[str]:
        if isinstance(kind, ast.Name) and kind.id in constants:
            kind = constants[kind.id]
        return {ast.unparse(one) for one in (kind.elts if isinstance(kind, ast.Tuple) else [kind] if kind else [])}

    def look(node: ast.AST, named: set[str]) -> None:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in READERS and not named >= FAILURES:
            found.append(node.lineno)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            named = set()  # it is called from elsewhere
        inside: list[ast.stmt] = []
        guarded = named
        if isinstance(node, ast.Try):
            inside, guarded = node.body, named.union(*(names(handler.type) for handler in node.handlers))
        elif isinstance(node, ast.With):
            calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            suppressed = [one for call in calls if ast.unparse(call.func).endswith("suppress") for one in call.args]
            inside, guarded = node.body, named.union(*map(names, suppressed))
        for child in ast.iter_child_nodes(node):
            look(child, guarded if child in inside else named)

    look(tree, set())
    return found


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_who_reads_json_names_both_ways_in_which_that_fails(path):
    # By these names it is seen; a reader of another kind wants its own line in READERS.
    used = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not (used & UNSEEN) | (imports(path) & (READERS | UNSEEN))
    if str(path.relative_to(ROOT)) not in OUR_OWN_JSON:
        assert unnamed(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("json.loads(x)", [1]),
        ("try:\n json.loads(x)\nexcept ValueError:\n pass", [2]),
        ("try:\n msgspec.json.decode(x)\nexcept RecursionError:\n pass", [2]),
        ("try:\n json.load(x)\nexcept (ValueError, RecursionError):\n json.loads(y)", [4]),
        ("try:\n pass\nexcept (ValueError, RecursionError):\n pass\nelse:\n json.loads(y)", [6]),
        ("try:\n def f():\n  json.loads(x)\nexcept (ValueError, RecursionError):\n pass", [3]),
        ("try:\n f = lambda: json.loads(x)\nexcept (ValueError, RecursionError):\n pass", [2]),
        ("with suppress(ValueError):\n json.loads(x)", [2]),
        ("with suppress(ValueError, RecursionError):\n json.loads(x)", []),
        ("BOTH = (ValueError, RecursionError)\ntry:\n json.loads(x)\nexcept BOTH:\n pass", []),
        ("try:\n try:\n  json.loads(x)\n except ValueError:\n  pass\nexcept RecursionError:\n pass", []),
    ],
)
def test_a_failure_that_is_not_named_is_found(code, lines):
    assert unnamed(ast.parse(code)) == lines


# What a statement returns, up to the end of its part or of the text.
RETURNED = re.compile(r'\bRETURNING\b(.*?)(?:\n\)|""")', re.DOTALL)
OF_ANOTHER_ROW = re.compile(r"\b(?:old|new)\.", re.IGNORECASE)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_statement_returns_what_postgres_knows_since_18_alone(path):
    """A database may be of 15 or newer (DatabaseUrl, DatabaseVersion, Aurora): RETURNING old and new came with 18."""
    returned = RETURNED.findall(path.read_text())
    assert [text for text in returned if OF_ANOTHER_ROW.search(text)] == []


def test_every_error_of_the_registry_has_a_status():
    def codes(error: type[RegistryError]) -> set[str]:
        return {error.code}.union(*(codes(kind) for kind in error.__subclasses__()))

    assert codes(RegistryError) == set(STATUSES)


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), f"{path} has no docstring"


def test_one_worker_runs_whatever_asks_the_real_servers_that_start_once_for_all():
    asking: set[str] = set()
    for folder in ("tests", "client/tests"):
        for path in (ROOT / folder).rglob("test_*.py"):
            functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
            given = (f for f in functions if f.name.startswith("test_") or f.decorator_list)
            asked = {argument.arg for function in given for argument in function.args.args}
            # Some have a fixture of their own under such a name.
            if asked & {"real", "fleet"} - {function.name for function in functions}:
                asking.add(path.relative_to(ROOT).as_posix())
    assert asking == set(FLEET)
    assert len({shift(f"{file}::test_one[a::b]") for file in FLEET}) == 1
    assert shift("tests/unit/test_house.py::test_one[a::b]") == "tests/unit/test_house.py"


@pytest.mark.parametrize("file", LONGEST)
def test_what_workers_begin_with_is_there(file):
    assert (ROOT / file).is_file()
