"""What the cold start of each function costs: CPU of its imports over a bare interpreter, against the baseline's.

On Python 3.13, the functions' runtime, with byte code present, and only with what the layer's locked list installs.
Each start is a process of its own, measured by the kernel (wait4): user and system CPU from exec to exit.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.report import Result, alternate, figure, medians, table

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".venv" / "bench-3.13"
VERSION = "3.13"
ROUNDS = 21

FUNCTIONS = ("authorizer", "list", "detail", "register", "update", "delete", "transfer", "health")
AUTHORIZER_MS = 5.0
BARS = {"list": 0.30, "detail": 0.30, "register": 0.45}

# Its credentials in a secret, as the template has it: what it does before the first request, and what is left for that
# (a call that nobody answers: TLS and the answer come on top).
SECRET = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "REGISTRY_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x",
}
WITH_SECRET = {
    "authorizer, with a secret": "import app",
    "authorizer, and a call": """
import app
try:
    app.lambda_handler(
        {
            "methodArn": "arn/v1/GET",
            "multiValueHeaders": {"Authorization": ["Basic YTpi"]},
            "requestContext": {"identity": {"sourceIp": "192.0.2.1"}},
        },
        None,
    )
except Exception as error:
    assert type(error).__name__ == "EndpointConnectionError", error
""",
}

# What the first token of a trusted issuer loads besides.
VERIFIER = "import app\nfrom mcp_registry.access import issuers"

# What single libraries cost, for docs/decisions/0001: the driver alone, and with either validation library as far as a
# first model.
LIBRARIES = {
    "psycopg alone": "import psycopg",
    "psycopg, msgspec": "import psycopg, msgspec; msgspec.defstruct('Model', [('name', str)])",
    "psycopg, pydantic": "import psycopg, pydantic; pydantic.create_model('Model', name=(str, ...))",
}

# What the client adds to a server: imported alone, where nothing that a framework loads is there yet.
CLIENT_MS = 30.0
CLIENT = {
    "client: register": "from mcp_registry_client import register",
    "client: RegistryMiddleware": "from mcp_registry_client import RegistryMiddleware",
    "client: register_lambda": "from mcp_registry_client import register_lambda",
}

# Lambda's own Python has boto3; by their names in requirements/dev.txt.
RUNTIME_REQUIREMENTS = "boto3 botocore jmespath python-dateutil s3transfer six urllib3"

# What benchmarks/baseline.py imports and what that needs, likewise.
BASELINE_REQUIREMENTS = """
annotated-doc annotated-types anyio fastapi idna mangum opentelemetry-api psycopg psycopg-binary psycopg-pool pydantic
pydantic-core starlette typing-extensions typing-inspection
"""

# As template.yaml sets it for the functions; the baseline gets the same.
ENVIRONMENT = {
    "DATABASE_URL": "postgresql://registry@127.0.0.1:9/registry",  # nothing is opened by an import
    "POWERTOOLS_LOG_LEVEL": "INFO",
    "POWERTOOLS_SERVICE_NAME": "mcp-registry",
    "PSYCOPG_IMPL": "binary",
    "REGISTRY_PASSWORD": "password",
    "REGISTRY_USERNAME": "admin",
}


class Start(NamedTuple):
    """A process that imports something: the folders on its path, the statement, and variables besides ENVIRONMENT."""

    path: tuple[Path, ...]
    statement: str
    variables: Mapping[str, str] = {}


def run(python: str | None = None) -> list[Result]:
    """Measure the start of each function and of the baseline and print what they took.

    `python`: the interpreter to use; without it Python 3.13 is looked for on the PATH and among pyenv's.
    """
    interpreter = _environment(python or _find_python())
    with TemporaryDirectory(prefix="registry-bench-") as folder:
        starts = _starts(interpreter, Path(folder))
        modules = {name: _modules(interpreter, start) for name, start in starts.items()}
        measured = alternate({name: _cpu_ms(interpreter, start) for name, start in starts.items()}, ROUNDS)
    middle, least = medians(measured), {name: min(figures) for name, figures in measured.items()}

    rows = [("import of", "modules", "median ms", "min ms", "median over bare", "min over bare", "of the baseline")]
    over = {name: middle[name] - middle["bare"] for name in starts}
    rows += [
        (
            name,
            str(modules[name]),
            figure(middle[name]),
            figure(least[name]),
            figure(over[name]),
            figure(least[name] - least["bare"]),
            f"{over[name] / over['baseline']:.2f}",
        )
        for name in starts
    ]
    spread = statistics.quantiles(measured["bare"], n=4)
    middle_half = f"half of the bare ones took {figure(spread[0])} to {figure(spread[2])} ms"
    print(f"{_version(interpreter)}, {ROUNDS} starts each; {middle_half}\n")
    print(table(rows))
    return [
        Result("cold start: authorizer, against 5 ms", over["authorizer"], AUTHORIZER_MS, "ms", 1.0),
        *(Result(f"cold start: {name}", over[name], over["baseline"], "ms", bar) for name, bar in BARS.items()),
        *(Result(f"import of the {name}, against 30 ms", over[name], CLIENT_MS, "ms", 1.0) for name in CLIENT),
    ]


def _starts(interpreter: str, folder: Path) -> Mapping[str, Start]:
    """Copies of what is imported, compiled; the repository's own folders stay as they are."""
    starts = {"bare": Start((), "pass")}
    layer = folder / "layer"
    shutil.copytree(ROOT / "layers" / "registry", layer)
    for name in FUNCTIONS:
        shutil.copytree(ROOT / "functions" / name, folder / name)
        starts[name] = Start((folder / name, layer), "import app")
    authorizer = starts["authorizer"].path
    starts |= {name: Start(authorizer, statement, SECRET) for name, statement in WITH_SECRET.items()}
    starts["authorizer, and a token of an issuer"] = Start(authorizer, VERIFIER)
    starts |= {name: Start((), statement) for name, statement in LIBRARIES.items()}
    shutil.copytree(ROOT / "client" / "src", folder / "client")
    starts |= {name: Start((folder / "client",), statement) for name, statement in CLIENT.items()}
    (folder / "fastapi").mkdir()
    shutil.copy(ROOT / "benchmarks" / "baseline.py", folder / "fastapi")
    starts["baseline"] = Start((folder / "fastapi",), "import baseline")
    subprocess.run([interpreter, "-m", "compileall", "-q", folder], check=True)
    return starts


# ------------------------------------------------------------------ a start


def _command(interpreter: str, start: Start, statement: str) -> tuple[list[str], dict[str, str]]:
    environment = {**ENVIRONMENT, **start.variables, "PATH": os.defpath}
    if start.path:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, start.path))
    return [interpreter, "-c", statement], environment


def _cpu_ms(interpreter: str, start: Start) -> Callable[[], float]:
    """A subject that starts once and gives the CPU that the kernel counted."""
    command, environment = _command(interpreter, start, start.statement)

    def measure() -> float:
        process = os.posix_spawn(interpreter, command, environment)
        _, status, usage = os.wait4(process, 0)
        assert status == 0, command
        return (usage.ru_utime + usage.ru_stime) * 1000

    return measure


def _modules(interpreter: str, start: Start) -> int:
    """How many modules are loaded when everything is imported."""
    statement = f"import sys\n{start.statement}\nprint(len(sys.modules))"
    command, environment = _command(interpreter, start, statement)
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def _version(interpreter: str) -> str:
    """Its version, or nothing where it does not start: pyenv leaves shims that start no interpreter."""
    return subprocess.run([interpreter, "--version"], check=False, capture_output=True, text=True).stdout.strip()


# ------------------------------------------------------------------ the interpreter


def _find_python() -> str:
    """Python 3.13, or the running one where there is none."""
    found = shutil.which(f"python{VERSION}")
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{VERSION}*/bin/python"))
    if found and _version(found).startswith(f"Python {VERSION}"):
        return found
    if pyenv:
        return str(pyenv[-1])
    print(f"No Python {VERSION} found (--python names one): measured on the running one instead.\n")
    return sys.executable


def _environment(python: str) -> str:
    """A virtual environment with the layer's libraries and the baseline's, made once for each state of the lists."""
    layer = (ROOT / "layers" / "dependencies" / "requirements.txt").read_text(encoding="utf-8")
    pins = _blocks((ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8"))
    locked = {
        **{name: pins[name] for name in f"{RUNTIME_REQUIREMENTS} {BASELINE_REQUIREMENTS}".split()},
        **_blocks(layer),
    }
    requirements = "".join(locked.values())
    key = hashlib.sha256(f"{_version(python)}\n{requirements}".encode()).hexdigest()
    interpreter, mark = CACHE / "bin" / "python", CACHE / "made-of"
    if mark.exists() and mark.read_text(encoding="ascii") == key:
        return str(interpreter)
    shutil.rmtree(CACHE, ignore_errors=True)
    print("Installing what is to be imported ...\n", flush=True)
    subprocess.run([python, "-m", "venv", CACHE], check=True)
    (CACHE / "requirements.txt").write_text(requirements, encoding="utf-8")
    install = (interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
    subprocess.run([*install, "--require-hashes", "-r", CACHE / "requirements.txt"], check=True, stderr=subprocess.PIPE)
    mark.write_text(key, encoding="ascii")
    return str(interpreter)


def _blocks(requirements: str) -> dict[str, str]:
    """The entries of a locked list by name, each with its hashes."""
    return {
        match[1]: match[0]
        for match in re.finditer(r"^([\w.-]+)(?:\[.*\])?==(?:.*\\\n)*.*\n", requirements, re.MULTILINE)
    }
