"""What `sam build` makes: two layers for either processor, whatever Python is here, without Docker."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from local import artefacts
from local.artefacts import ArtefactError
from local.run import LOOPBACK
from local.samconfig import SamconfigError
from tests.conftest import ROOT
from tests.issuer import Key, Server

VENV_BIN = Path(sys.executable).parent
# What the layers' Makefile runs, and nothing else: no Python, no pip, no Docker.
TOOLS = ("cp", "find", "make", "mkdir", "rm", "test", "xargs")
LAYERS = ("DependenciesLayer", "RegistryLayer")
FUNCTIONS = {
    "".join(word.title() for word in path.name.split("_")) + "Function"
    for path in (ROOT / "functions").iterdir()
    if (path / "app.py").is_file()
}
# What Lambda's runtime has of itself; as links, because the tests' own folder holds far more.
RUNTIME = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six.py", "urllib3")
PROCESSORS = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
ELF = {"x86_64": 0x3E, "arm64": 0xB7}
UNCHECKED_HASH = 1  # the flags of a pyc: has a hash, and nobody compares it (PEP 552)
MOST = 60 * 1024 * 1024  # bytes of both layers, unpacked


class Build(NamedTuple):
    """A folder that sam filled, and what it said."""

    folder: Path
    output: str

    def layer(self, name: str) -> Path:
        return self.folder / name / "python"


@cache
def python_313() -> str | None:
    """A Python 3.13 of this machine, which need not be on the PATH."""
    found = [shutil.which("python3.13"), *sorted((Path.home() / ".pyenv" / "versions").glob("3.13.*/bin/python"))]
    for candidate in filter(None, found):
        said = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False).stdout
        if said.startswith("Python 3.13."):  # pyenv leaves shims that start nothing
            return str(candidate)
    return None


@pytest.fixture(scope="module")
def sam_build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Build]:
    """Runs `sam build` with a PATH of the necessary tools, and a Python 3.13 or none."""
    asked = subprocess.run([VENV_BIN / "uv", "cache", "dir"], capture_output=True, text=True, check=True)

    def run(architecture: str, *resources: str, python: str | None) -> Build:
        folder = tmp_path_factory.mktemp("build")
        tools = folder / "bin"
        tools.mkdir()
        for tool in TOOLS:
            (tools / tool).symlink_to(shutil.which(tool) or tool)
        (tools / "uv").symlink_to(VENV_BIN / "uv")
        # uv asks some interpreter about the machine, as it finds that of the environment in `make build`.
        (tools / "python3").symlink_to(sys.executable)
        if python:
            (tools / "python3.13").symlink_to(python)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYENV", "PYTHON"))},
            "ARCHITECTURE": architecture,
            "HOME": str(folder),
            "PATH": str(tools),
            "SAM_CLI_TELEMETRY": "0",
            "UV_CACHE_DIR": asked.stdout.strip(),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_PYTHON_INSTALL_DIR": str(folder / "pythons"),
        }
        command = [VENV_BIN / "sam", "build", *resources, "--template", ROOT / "template.yaml"]
        command += ["--build-dir", folder / "build", "--parameter-overrides", f"Architecture={architecture}"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return Build(folder / "build", done.stdout + done.stderr)

    return run


@pytest.fixture(scope="module")
def x86_64(sam_build) -> Build:
    return sam_build("x86_64", python=python_313())


@pytest.fixture(scope="module")
def arm64(sam_build) -> Build:
    return sam_build("arm64", python=python_313())


@pytest.fixture(scope="module", params=["x86_64", "arm64"])
def build(request: pytest.FixtureRequest) -> Build:
    return request.getfixturevalue(request.param)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def needs_python_313() -> str:
    python = python_313()
    if python is None:
        pytest.skip("there is no Python 3.13 on this machine")
    return python


# ------------------------------------------------------------------ the layers


def test_the_layers_hold_their_packages_where_lambda_looks_for_them(build):
    dependencies, registry = (build.layer(name) for name in LAYERS)
    assert [path.name for path in registry.iterdir()] == ["mcp_registry"]
    ours = {path.name for path in (ROOT / "layers" / "registry" / "mcp_registry").iterdir()} - {"__pycache__"}
    assert {path.name for path in (registry / "mcp_registry").iterdir()} - {"__pycache__"} == ours
    compiled = ("psycopg_binary", "aiodns", "pycares", "uvloop", "jwt", "cryptography")
    for module in ("psycopg", "aws_lambda_powertools", "msgspec", *compiled):
        assert (dependencies / module / "__init__.py").is_file(), module


def test_the_contract_is_in_the_layer_and_not_only_a_link_to_it(build):
    contract = build.layer("RegistryLayer") / "mcp_registry" / "openapi.yaml"
    assert not contract.is_symlink()
    assert contract.read_bytes() == (ROOT / "docs" / "openapi.yaml").read_bytes()


def test_the_layers_hold_nothing_that_no_function_needs(build):
    names = {path.name for layer in LAYERS for path in build.layer(layer).rglob("*")}
    assert not names & {"pip", "setuptools", "wheel", "tests", "test", "boto3", "botocore", "tzdata", "bin", "Makefile"}
    assert not {name for name in names if name.endswith((".pyx", ".pxd", ".pyi", ".c", ".h"))}


def test_what_is_in_a_layer_can_be_told_from_its_metadata(build):
    pinned = (ROOT / "layers" / "dependencies" / "requirements.txt").read_text()
    for folder in build.layer("DependenciesLayer").glob("*.dist-info"):
        name, version = folder.name.removesuffix(".dist-info").split("-")
        assert f"{name.replace('_', '-')}=={version} " in pinned
        assert (folder / "METADATA").is_file()


@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
def test_every_native_module_is_for_the_processor_that_was_asked_for(architecture, request):
    build = request.getfixturevalue(architecture)
    headers = [data[:20] for name, data in contents(build.folder).items() if ".so" in name]
    assert len(headers) > 10
    assert {header[:4] for header in headers} == {b"\x7fELF"}
    assert {int.from_bytes(header[18:20], "little") for header in headers} == {ELF[architecture]}


def test_the_layers_are_small(build):
    assert sum(len(data) for layer in LAYERS for data in contents(build.folder / layer).values()) < MOST


def test_every_module_is_compiled_and_names_itself_as_on_lambda(build):
    needs_python_313()
    for layer in LAYERS:
        python = build.layer(layer)
        sources = list(python.rglob("*.py"))
        assert sources
        for source in sources:
            compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
            data = compiled.read_bytes()
            assert int.from_bytes(data[4:8], "little") == UNCHECKED_HASH
            assert f"/opt/python/{source.relative_to(python)}".encode() in data
            assert str(build.folder).encode() not in data


def test_two_builds_are_equal_byte_for_byte(sam_build, x86_64):
    again = sam_build("x86_64", *LAYERS[:1], python=python_313())
    assert contents(again.folder / LAYERS[0]) == contents(x86_64.folder / LAYERS[0])
    again = sam_build("x86_64", *LAYERS[1:], python=python_313())
    assert contents(again.folder / LAYERS[1]) == contents(x86_64.folder / LAYERS[1])


def test_without_python_3_13_a_layer_is_built_that_says_what_it_lacks(sam_build):
    build = sam_build("x86_64", "RegistryLayer", python=None)
    assert "No Python 3.13 to compile with" in build.output
    assert (build.layer("RegistryLayer") / "mcp_registry" / "__init__.py").is_file()
    assert not list(build.folder.rglob("*.pyc"))


def test_a_processor_that_lambda_does_not_have_is_refused(sam_build):
    with pytest.raises(AssertionError, match="ARCHITECTURE must be x86_64 or arm64, not riscv64"):
        sam_build("riscv64", "DependenciesLayer", python=None)


# ------------------------------------------------------------------ the functions


@pytest.fixture(scope="module")
def native(request: pytest.FixtureRequest) -> Build:
    """The build for this machine's own processor."""
    needs_python_313()
    if sys.platform != "linux" or platform.machine() not in PROCESSORS:
        pytest.skip("the layers are for Linux on the processors that Lambda has")
    return request.getfixturevalue(PROCESSORS[platform.machine()])


def run_function(build: Build, name: str, script: str, tmp_path: Path, **environment: str) -> str:
    """Run a script where a function runs: Python 3.13 with the function's folder, its layers, Lambda's boto3."""
    import boto3

    runtime = tmp_path / "runtime"
    runtime.mkdir()
    for module in RUNTIME:
        (runtime / module).symlink_to(Path(boto3.__file__).parent.parent / module)
    path = [build.folder / name, *map(build.layer, LAYERS), runtime]
    start = f"import sys; sys.path[:0] = {list(map(str, path))!r}\n"
    done = subprocess.run(
        [needs_python_313(), "-I", "-S", "-B", "-c", start + script],
        env={"POWERTOOLS_SERVICE_NAME": "test", "PSYCOPG_IMPL": "binary", "TZ": "UTC", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_function_is_built(x86_64):
    built = {path.name for path in x86_64.folder.iterdir() if path.is_dir()}
    assert built - set(LAYERS) >= FUNCTIONS


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_can_be_imported_from_what_was_built(name, native, tmp_path):
    # What verifies tokens of issuers is in the layer, and takes as long as all else that a cold start does.
    spared = "import sys; assert not {'jwt', 'cryptography'} & {*sys.modules}"
    run_function(native, name, f"import app; assert app.lambda_handler; {spared}", tmp_path)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384"])
def test_a_token_of_an_issuer_is_verified_by_what_was_built(algorithm, native, tmp_path):
    with Server() as server:
        issuer = server.issuer("built", Key.of(algorithm))
        now = time.time()
        token = issuer.sign({"aud": "us", "sub": "ci", "exp": now + 60})
        script = (
            "from mcp_registry.access import issuers\n"
            "issuers.FETCH_SECONDS = 60\n"  # on a busy machine it may take longer than is promised
            "rules = [issuers.Rule('ci', 'us', {'sub': '*'}, 'publisher', 'tools')]\n"
            f"print(issuers.verify({token!r}, lambda _: rules, {now!r}).name)"
        )
        said = run_function(native, "AuthorizerFunction", script, tmp_path, GUARD_OPEN_CIDRS=LOOPBACK)
    assert said == "oidc:ci:ci\n"


@pytest.mark.parametrize(
    ("name", "event", "status"),
    [
        ("RegisterFunction", "register-post", 201),
        ("ListFunction", "list-first-page", 200),
        ("FrontFunction", "contract", 200),
    ],
)
def test_a_function_answers_from_what_was_built(name, event, status, native, new_database, tmp_path):
    from samtranslator.yaml_helper import yaml_parse

    shared = yaml_parse((native.folder / "template.yaml").read_text())["Globals"]["Function"]
    text = (ROOT / "events" / f"{event}.json").read_text()
    script = f"import app, json; print(json.dumps(app.lambda_handler(json.loads({text!r}), None)))"
    environment = {
        "DATABASE_URL": new_database(),
        "GUARD_OPEN_CIDRS": LOOPBACK,
        "POWERTOOLS_LOG_LEVEL": "CRITICAL",
        "ROLES": shared["Environment"]["Variables"]["ROLES"],
    }
    said = run_function(native, name, script, tmp_path, **environment)
    assert json.loads(said)["statusCode"] == status


# ------------------------------------------------------------------ the table of sizes


def test_the_table_says_what_each_function_weighs_with_its_layers(x86_64):
    found = artefacts.read(x86_64.folder)
    assert {artefact.name for artefact in found} >= {*LAYERS, *FUNCTIONS}
    artefacts.check(found, "x86_64")
    by_name = {artefact.name: artefact for artefact in found}
    both = sum(by_name[layer].unpacked for layer in LAYERS)
    assert artefacts.together(by_name["ListFunction"], found) == by_name["ListFunction"].unpacked + both
    lines = artefacts.table(found).splitlines()
    assert len(lines) == len(found) + 1
    assert lines[1].split()[:2] == ["DependenciesLayer", "x86_64"]


def test_a_build_for_another_processor_is_refused(arm64):
    with pytest.raises(ArtefactError, match="DependenciesLayer is built for arm64"):
        artefacts.check(artefacts.read(arm64.folder), "x86_64")


def test_a_build_that_is_larger_than_lambda_takes_is_refused():
    layer = artefacts.Artefact("Layer", (), artefacts.LIMIT, 1, frozenset())
    function = artefacts.Artefact("Function", ("Layer",), 1, 1, frozenset())
    artefacts.check([layer], "x86_64")
    with pytest.raises(ArtefactError, match=r"Function and its layers have 250\.0 MB"):
        artefacts.check([layer, function], "x86_64")


def test_no_build_is_one_line(tmp_path, capsys):
    assert artefacts.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path} holds no build: run make build\n"


# ------------------------------------------------------------------ samconfig.toml


@pytest.mark.parametrize("environment", ["default", "dev", "staging", "prod"])
def test_an_environment_sets_parameters_that_the_template_has_and_no_secret(environment):
    from samtranslator.yaml_helper import yaml_parse

    config = tomllib.loads((ROOT / "samconfig.toml").read_text())[environment]
    declared = yaml_parse((ROOT / "template.yaml").read_text())["Parameters"]
    for override in config["deploy"]["parameters"].get("parameter_overrides", []):
        name, _, value = override.partition("=")
        assert name in declared, name
        assert not declared[name].get("NoEcho"), name
        allowed = [str(choice) for choice in declared[name].get("AllowedValues", [])]
        assert not allowed or value in allowed, override
    assert artefacts.architecture_of(environment) in ELF


def test_an_environment_that_does_not_exist_is_refused_by_name():
    with pytest.raises(SamconfigError, match="has no environment production; it has default, dev, prod, staging"):
        artefacts.architecture_of("production")


def test_what_sam_deploy_guided_saves_is_read_too(tmp_path):
    saved = tmp_path / "samconfig.toml"
    saved.write_text("""version = 0.1
[default.deploy.parameters]
parameter_overrides = 'Architecture="arm64" Size="small" VpcId="" AlarmEmail="a b@example.com"'
""")
    assert artefacts.architecture_of("default", saved) == "arm64"


@pytest.mark.parametrize("architecture", ELF)
def test_a_build_can_be_deployed_for_its_own_processor_only(x86_64, architecture, tmp_path):
    from samtranslator.yaml_helper import yaml_parse

    (tmp_path / "template.yaml").write_text((x86_64.folder / "template.yaml").read_text())
    for _ in range(2):  # `make build` may be repeated without `sam build` having anything to do
        artefacts.fix_architecture(tmp_path, architecture)
    parameter = yaml_parse((tmp_path / "template.yaml").read_text())["Parameters"]["Architecture"]
    assert (parameter["Default"], parameter["AllowedValues"]) == (architecture, [architecture])


def test_a_built_template_holds_no_anchor_which_cloudformation_would_refuse(x86_64):
    text = (x86_64.folder / "template.yaml").read_text()
    assert not re.search(r"(^|[ \[{,])[&*][a-z_]+\b", text, re.MULTILINE)
