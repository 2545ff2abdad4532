"""The wheel, the examples, and what importing costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from client.tests.conftest import Registry
from client.tests.programs import CLIENT, EXAMPLES, free_port, kept, running, settings, shown, wire_tools
from mcp_registry_client import __version__

# What takes longer to import than the rest together, and is imported in the thread, where it is needed at all.
HEAVY = {
    "asyncio",
    "email",
    "hashlib",
    "http",
    "inspect",
    "logging",
    "pathlib",
    "random",
    "ssl",
    "tempfile",
    "urllib.request",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the build system that the project names."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: a build leaves folders beside the source.
    source = folder / "client"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((CLIENT / name).read_bytes())
    for path in (CLIENT / "src" / "mcp_registry_client").iterdir():
        if path.is_file():
            target = source / "src" / "mcp_registry_client" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    done = subprocess.run([*command, "-w", str(folder), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_package_its_types_and_no_dependency(wheel: Path):
    assert wheel.name == f"mcp_registry_client-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"mcp_registry_client-{__version__}.dist-info/METADATA").decode()
        points = archive.read(f"mcp_registry_client-{__version__}.dist-info/entry_points.txt").decode()
    packaged = {f"mcp_registry_client/{path.name}" for path in (CLIENT / "src" / "mcp_registry_client").glob("*.*")}
    assert packaged <= names and "mcp_registry_client/py.typed" in names
    assert f"mcp_registry_client-{__version__}.dist-info/licenses/LICENSE" in names
    assert (CLIENT / "LICENSE").read_text() == (CLIENT.parent / "LICENSE").read_text()
    assert "Requires-Dist" not in metadata and "Requires-Python: >=3.10" in metadata
    assert "mcp-registry = mcp_registry_client.cli:main" in points


def test_the_fastmcp_example_is_in_the_registry_from_the_wheel(wheel: Path, registry: Registry):
    port = free_port()
    # A wheel is a zip file that Python imports from; nothing of the source tree is on the path.
    options = {"environment": settings(registry.url, PORT=str(port)), "source": wheel, "cwd": EXAMPLES}
    with running("current", "python", "-W", "error", "fastmcp_server.py", **options):
        wait_for(registry, "rates", f"http://127.0.0.1:{port}/mcp")


def test_the_asgi_example_is_one_server_however_many_workers_it_has(wheel: Path, registry: Registry):
    port = free_port()
    options = {"environment": settings(registry.url), "source": wheel, "cwd": EXAMPLES}
    command = ("python", "-m", "uvicorn", "asgi_app:app", "--port", str(port), "--workers", "2")
    with running("current", *command, **options):
        wait_for(registry, "units", f"http://127.0.0.1:{port}/units/")


def wait_for(registry: Registry, name: str, url: str) -> None:
    """Wait until the server is in the registry, with the tools that it has on the wire."""
    (row,) = registry.wait_for(name)
    assert row["endpoint_url"] == url
    assert shown(row) == kept(wire_tools(url)) and len(row["tools"]) == 1


@pytest.mark.parametrize("module", ["_register", "asgi", "aws_lambda"])
def test_importing_loads_nothing_heavy(module: str):
    code = (
        f"import sys; before = set(sys.modules); import mcp_registry_client.{module}; print(*set(sys.modules) - before)"
    )
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, env={"PYTHONPATH": str(CLIENT / "src")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert not HEAVY & {*loaded, *(name.partition(".")[0] for name in loaded)}


def interpreters() -> dict[str, str]:
    """The other Pythons of this machine that the package is for, by their versions."""
    found: dict[str, str] = {}
    for minor in range(10, 15):
        version = f"3.{minor}"
        pyenv = (Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")
        for candidate in filter(None, [shutil.which(f"python{version}"), *map(str, pyenv)]):
            done = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            if done.stdout.startswith(f"Python {version}."):  # pyenv leaves shims that start nothing
                found.setdefault(version, candidate)
    return found


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_it_runs_on_every_python_that_it_is_for(version: str, wheel: Path, registry: Registry):
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    program = (
        "from mcp_registry_client import RegistryMiddleware, register, register_lambda\n"
        "app = RegistryMiddleware(lambda scope, receive, send: None, name='a', tools=[])\n"
        "handle = register(object())\n"
        "handler = register_lambda(lambda event, context: event, tools=[], name='a')\n"
        "print(app.registration.state, handle.state, handler(1, None), handler.registration.state)\n"
    )
    environment = {"PYTHONPATH": str(wheel), "PATH": os.environ["PATH"]}
    done = subprocess.run([python, "-W", "error", "-c", program], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("off off 1 off\n", "")
    command = [python, "-W", "error", "-m", "mcp_registry_client", "list", "--json"]
    done = subprocess.run(command, env=environment | settings(registry.url), capture_output=True, text=True)
    assert done.returncode == 0 and "servers" in json.loads(done.stdout), done.stderr


def test_what_builds_the_package_is_one_version_with_its_hashes():
    locked = (CLIENT / "requirements-build.txt").read_text()
    version = locked.partition(" ")[0]
    assert f'requires = ["{version}"]' in (CLIENT / "pyproject.toml").read_text()
    assert locked.startswith("setuptools==") and "--hash=sha256:" in locked
    assert locked in (CLIENT.parent / "requirements" / "dev.txt").read_text()


def test_one_version_stands_everywhere():
    assert f'version = "{__version__}"' in (CLIENT / "pyproject.toml").read_text()
    for path in (CLIENT / "src" / "mcp_registry_client").glob("_*.py"):
        text = path.read_text()
        assert "mcp-registry-client/" not in text or f"mcp-registry-client/{__version__}" in text
