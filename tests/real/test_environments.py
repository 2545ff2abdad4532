"""The environments of the real servers: made once, whoever asks first, and again when their list changes."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.real import environments

# One small package of the lists with its hashes: whoever runs these tests has it in a cache.
LINES = Path(environments.__file__).with_name("requirements-early.txt").read_text().splitlines(keepends=True)
FIRST = next(number for number, line in enumerate(LINES) if line.startswith("annotated-types=="))
ONE = "".join([LINES[FIRST], *(line for line in LINES[FIRST + 1 : FIRST + 3] if line.startswith("    --hash"))])


@pytest.fixture
def requirements(tmp_path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(ONE)
    return path


@pytest.fixture
def commands(monkeypatch) -> list[tuple[str, ...]]:
    """The commands that were run, which are carried out as ever."""
    seen: list[tuple[str, ...]] = []
    run = environments.run

    def record(*command: str) -> None:
        seen.append(command)
        run(*command)

    monkeypatch.setattr(environments, "run", record)
    return seen


def packages(folder: Path) -> set[str]:
    script = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    output = subprocess.run([folder / "python", "-c", script], capture_output=True, text=True, check=True).stdout
    return set(output.split())


def test_an_environment_that_is_there_is_taken_as_it_is(tmp_path, requirements, commands):
    folder = environments.make(tmp_path / "real" / "era", requirements)
    assert packages(folder) == {"annotated-types"}
    commands.clear()
    assert environments.make(tmp_path / "real" / "era", requirements) == folder
    assert commands == []


def test_an_environment_is_made_again_when_its_list_changes(tmp_path, requirements):
    folder = environments.make(tmp_path / "real" / "era", requirements)
    requirements.write_text("# nothing\n")
    assert packages(environments.make(tmp_path / "real" / "era", requirements)) == set()
    assert folder.exists()


def test_an_environment_that_was_not_finished_is_made_again(tmp_path, requirements, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            environments, "install", lambda environment, requirements: (environment / "bin").mkdir(parents=True)
        )
        environments.make(tmp_path / "real" / "era", requirements)
    assert packages(environments.make(tmp_path / "real" / "era", requirements)) == {"annotated-types"}


def test_two_runs_at_once_make_it_once(tmp_path, requirements, commands):
    with ThreadPoolExecutor(2) as threads:
        made = [threads.submit(environments.make, tmp_path / "real" / "era", requirements) for _ in range(2)]
        (folder,) = {one.result() for one in made}
    assert packages(folder) == {"annotated-types"}
    assert len([command for command in commands if "venv" in command]) == 1


def test_pip_does_it_where_there_is_no_uv(tmp_path, requirements, monkeypatch, commands):
    monkeypatch.setattr(environments.sysconfig, "get_path", lambda name: str(tmp_path))
    folder = environments.make(tmp_path / "real" / "era", requirements)
    assert "annotated-types" in packages(folder)
    assert any("pip" in command for command in commands)


def test_a_package_whose_hash_is_wrong_is_refused(tmp_path, requirements):
    requirements.write_text(ONE.split(" ")[0] + " --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(RuntimeError, match=r"[Hh]ash"):
        environments.make(tmp_path / "real" / "era", requirements)
    assert not (tmp_path / "real" / "era" / "complete").exists()


def test_a_commit_of_everything_holds_no_environment(tmp_path, requirements):
    environments.make(tmp_path / "real" / "era", requirements)
    assert (tmp_path / "real" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("era", environments.ERAS)
def test_every_package_of_an_era_is_pinned_by_hash(era):
    lines = Path(environments.__file__).with_name(f"requirements-{era}.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith((" ", "#"))]
    assert packages
    assert all("==" in line and line.endswith("\\") for line in packages)


@pytest.mark.parametrize("name", environments.NPM)
def test_every_package_of_npm_is_pinned_by_hash_and_comes_from_whatever_registry_the_machine_has(name):
    folder = environments.HERE / name
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    wanted = packages.pop("")
    assert packages and all(package["integrity"] and "resolved" not in package for package in packages.values())
    listed = json.loads((folder / "package.json").read_text())
    for kind in ("dependencies", "optionalDependencies"):
        assert listed.get(kind) == wanted.get(kind)
        assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in listed.get(kind, {}).values())
