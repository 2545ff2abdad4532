"""How many defects the tests would see: each is put into a module by a program, and its tests have to fail.

Run by `make mutate`. The operators are mutmut's, and a few more below. The runner is ours: mutmut's own leaves out the
body of a module and every function with a decorator, which is more than half of the guard (336 of 590 mutants), and
cosmic-ray starts an interpreter for each mutant, which takes 1.6 to 4 s here (2026-11-22). This one forks a process
that has all libraries loaded, and hands the mutant over in memory: no file is ever a mutated one.

What is measured is a copy of the tree made at the start, so that whoever edits meanwhile is not disturbed and does not
disturb. Properties are tested with the same examples each time, so that the score is the same each time. All 2,252
mutants take about 1,050 s of processor time (2026-11-23).
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import importlib
import multiprocessing
import multiprocessing.process
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from multiprocessing.connection import wait
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

# These two are installed by `make mutate` only (requirements/mutate.txt).
import libcst as cst  # pyright: ignore[reportMissingImports]
import pytest
from hypothesis import HealthCheck, Phase, settings
from mutmut.mutation.mutators import mutation_operators  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).parent.parent
ACCEPTED = ROOT / "tests" / "mutants.toml"
PACKAGE = "layers/registry/mcp_registry"
BAR = 90.0

# What the tests of these modules read.
NEEDED = ("conftest.py", "functions", "layers", "local", "sql", "tests", "pyproject.toml", "template.yaml")
# Libraries that the tests load: once for all mutants rather than once for each. Nothing of ours is among them, because
# each mutant has to be there before whoever imports it.
LIBRARIES = ("aws_lambda_powertools.logging", "boto3", "cryptography", "moto", "msgspec", "psycopg", "uvicorn", "yaml")

# A mutant may take so many times what the tests take, and some seconds more.
PATIENCE, MORE_SECONDS = 10, 10
# Some mutants would fill the memory, which is what the tests that they fail are about.
MAX_MEMORY = 3 * 1024**3

REGISTER_GUARD = "tests/integration/test_register_guard.py::"
SECRET = "tests/unit/test_secret.py::"
DB = "tests/integration/test_db.py::"


class Subject(NamedTuple):
    """A module, and the tests that are to see a defect in it, the quickest first."""

    module: str
    tests: tuple[str, ...]
    # The definitions that are meant, where it is not the whole module.
    only: frozenset[str] = frozenset()
    # Where it is, if not in the package.
    file: str = ""

    @property
    def path(self) -> str:
        """The module's file, from the root of the tree."""
        return self.file or f"{PACKAGE}/{self.module.replace('.', '/')}.py"


SUBJECTS = (
    Subject(
        "dial.guard",
        (
            # What needs no database of the guard's other tests: the look-up of a registration.
            REGISTER_GUARD + "test_a_name_with_public_addresses_passes",
            REGISTER_GUARD + "test_one_closed_address_closes_the_name_and_is_not_told",
            REGISTER_GUARD + "test_the_operators_networks_decide_about_the_answers_too",
            REGISTER_GUARD + "test_a_name_that_does_not_exist_yet_passes",
            REGISTER_GUARD + "test_what_is_known_is_not_looked_up",
            REGISTER_GUARD + "test_a_resolver_that_hangs_lets_the_name_pass_and_few_threads_wait_for_it",
            "tests/unit/test_guard.py",
        ),
    ),
    Subject(
        "access.auth",
        (
            "tests/unit/test_auth.py",
            # What it makes of the secret; the rest of them is about how that is read.
            SECRET + "test_the_credentials_come_from_the_secret",
            SECRET + "test_half_a_pair_in_the_secret_is_no_credential",
            SECRET + "test_while_a_rotation_is_under_way_both_credentials_are_valid",
        ),
    ),
    Subject("access.tokens", ("tests/unit/test_tokens.py",)),
    Subject("access.issuers", ("tests/unit/test_issuers.py",)),
    Subject("access.limits", ("tests/unit/test_limits.py",)),
    Subject("access.admission", ("tests/unit/test_auth.py", "tests/unit/test_admission.py")),
    Subject("authorizer", ("tests/unit/test_auth.py",), file="functions/authorizer/app.py"),
    Subject(
        "aws.secret",
        (
            # How it is read and remembered; the rest of them is about the command that changes it.
            SECRET + "test_a_secret_is_served_for_a_minute_and_then_read_again",
            SECRET + "test_each_secret_is_remembered_by_its_own_name",
            SECRET + "test_silence_and_throttling_leave_the_last_secret_for_another_minute",
            SECRET + "test_a_refusal_closes_a_secret_that_was_read_before",
            SECRET + "test_without_a_last_secret_every_failure_is_an_error",
            SECRET + "test_botocore_logs_nothing_of_what_it_reads_whatever_the_level_of_all_loggers",
            SECRET + "test_one_client_with_little_patience_is_made",
            SECRET + "test_a_new_execution_environment_has_neither_a_client_nor_a_secret_and_reads_one",
        ),
    ),
    Subject("dial.urls", ("tests/unit/test_urls.py",)),
    Subject("edge.intake", ("tests/unit/test_intake.py",)),
    Subject("errors", ("tests/unit/test_http.py", "tests/unit/test_intake.py")),
    Subject("edge.http", ("tests/unit/test_http.py", "tests/unit/test_intake.py")),
    Subject(
        "aws.db",
        (
            DB + "test_the_state_of_an_error_says_whether_to_come_back",
            DB + "test_an_outage_is_told_by_its_state_or_else_its_kind_and_never_by_the_drivers_text",
            DB + "test_an_error_that_is_no_outage_stays_what_it_is",
        ),
        only=frozenset({"UNAVAILABLE_CLASSES", "UNAVAILABLE_STATES", "_means_unavailable", "_translated"}),
    ),
)

# ------------------------------------------------------------------ mutants


# Module, what stands there, and what a mutant has in its place: no line, which moves with every edit.
Change = tuple[str, str, str]


class Mutant(NamedTuple):
    """A defect: the module with it, the line that it is in, and what stands there now."""

    code: str
    line: int
    was: str
    becomes: str


def forced(node: cst.If | cst.IfExp | cst.CompIf) -> Iterator[cst.CSTNode]:
    """A condition that never holds, and one that always does."""
    condition = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    for operator, literal in ((cst.And(), "False"), (cst.Or(), "True")):
        yield node.with_changes(test=cst.BooleanOperation(condition, operator, cst.Name(literal)))


def nothing_returned(node: cst.Return) -> Iterator[cst.CSTNode]:
    """A function that forgets its result."""
    if node.value is not None and not (isinstance(node.value, cst.Name) and node.value.value == "None"):
        yield node.with_changes(value=cst.Name("None"))


def nothing_done(node: cst.Expr | cst.Raise) -> Iterator[cst.CSTNode]:
    """A call that is not made, an error that is not raised."""
    if isinstance(node, cst.Raise) or isinstance(node.value, cst.Call):
        yield cst.Pass()


def row_missing(node: cst.Dict | cst.List | cst.Set | cst.Tuple) -> Iterator[cst.CSTNode]:
    """A table without one of its rows. A tuple without parentheses is no table."""
    if isinstance(node, cst.Tuple) and not node.lpar:
        return
    for place in range(len(node.elements)):
        kept = [*node.elements[:place], *node.elements[place + 1 :]]
        if isinstance(node, cst.Set) and not kept:
            continue
        if isinstance(node, cst.Tuple) and len(kept) == 1:
            kept[0] = kept[0].with_changes(comma=cst.Comma())
        yield node.with_changes(elements=kept)


OPERATORS: tuple[tuple[Any, Callable[[Any], Iterable[cst.CSTNode]]], ...] = (
    *mutation_operators,
    ((cst.If, cst.IfExp, cst.CompIf), forced),
    (cst.Return, nothing_returned),
    ((cst.Expr, cst.Raise), nothing_done),
    ((cst.Dict, cst.List, cst.Set, cst.Tuple), row_missing),
)


class Mutations(cst.CSTVisitor):  # pyright: ignore[reportUntypedBaseClass]
    """Collects what becomes of each node of a module.

    Left out, as by mutmut: annotations and decorators (a cache is of no matter for what is right), and the arguments of
    len and isinstance, where a defect is a TypeError. Imports for the type checker only are left out too.
    """

    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom):
            return False
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in ("len", "isinstance"):
            return False
        if isinstance(node, cst.If) and isinstance(node.test, cst.Name) and node.test.value == "TYPE_CHECKING":
            return False
        for kinds, operator in OPERATORS:
            if isinstance(node, kinds):
                self.found += [(node, mutated) for mutated in operator(node) if not self.is_twin(node, mutated)]
        return True

    def is_twin(self, node: cst.CSTNode, mutated: cst.CSTNode) -> bool:
        """Whether this is `get(key)`, which means what the mutant `get(key, None)` does."""
        return (
            isinstance(node, cst.Call)
            and isinstance(node.func, cst.Attribute)
            and node.func.attr.value == "get"
            and isinstance(mutated, cst.Call)
            and len(node.args) == 2
            and len(mutated.args) == 1
            and mutated.args[0] is node.args[0]
        )


def mutants(code: str, only: frozenset[str]) -> list[Mutant]:
    """Every mutant of a module, once; of the definitions that `only` names, where it names any."""
    module = cst.parse_module(code)
    # Statement by statement, since making a whole module anew for each mutant takes ten times as long.
    statements = [module.code_for_node(statement) for statement in module.body]
    before, _, after = code.partition("".join(statements))
    found: list[Mutant] = []
    for place, statement in enumerate(module.body):
        head = before + "".join(statements[:place])
        tail = "".join(statements[place + 1 :]) + after
        if only and not names(statements[place]) & only:
            continue
        seen = {ast.dump(ast.parse(statements[place]))}
        visitor = Mutations()
        statement.visit(visitor)
        for node, mutated in visitor.found:
            changed = module.code_for_node(statement.deep_replace(node, mutated))
            try:
                tree = ast.dump(ast.parse(changed))
            except SyntaxError:
                continue
            if tree not in seen:
                seen.add(tree)
                line, was, becomes = difference(statements[place], changed)
                found.append(Mutant(head + changed + tail, head.count("\n") + line, was, becomes))
    return found


def names(statement: str) -> set[str]:
    """What a statement defines."""
    (node,) = ast.parse(statement).body
    targets = {target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)}
    return targets | {getattr(node, "name", "")}


def difference(statement: str, changed: str) -> tuple[int, str, str]:
    """The first line that differs, and the lines that do, in both, without the space around them."""
    before, after = statement.splitlines(), changed.splitlines()
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    first, *_, last = [block for block in blocks if block[0] != "equal"] * 2  # one alone is both
    was = " ".join(line.strip() for line in before[first[1] : last[2]])
    return first[1] + 1, was, " ".join(line.strip() for line in after[first[3] : last[4]])


# ------------------------------------------------------------------ running

FORK = multiprocessing.get_context("fork")


class Child(NamedTuple):
    """A process that tests one mutant, and when it has had time enough."""

    process: multiprocessing.process.BaseProcess
    mutant: Mutant
    deadline: float


# What a child ends with. Anything else says nothing of the tests: pytest's other codes (internal error, wrong usage,
# nothing collected, interrupted), and signals.
SURVIVED, KILLED = 0, 1
NOT_RUN = 100  # by which no pytest ends: the tests could not be started, or left pytest by no way of its own


class Collection:
    """A plugin of pytest that knows whether a file of tests could not be loaded."""

    failed = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """One file, or one test of it."""
        self.failed |= report.failed


def tests(tree: Path, subject: Subject, mutant: Mutant | None) -> None:
    """Run the tests of a module with a mutant in its place, or with none, and end with what became of it."""
    code = NOT_RUN
    try:
        os.setpgid(0, 0)  # with whatever the tests start, so that all of it can be ended
        os.chdir(tree)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
        # This module is of the tree that is not the copy; the copy's are loaded from here on.
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        others = [path for path in sys.path if path not in ("", str(ROOT))]
        sys.path[:] = [str(tree), str(tree / "layers" / "registry"), *others]
        if mutant is not None:
            put_in_place(tree / subject.path, mutant)
        code = tested(subject)
    finally:
        os._exit(code)


def tested(subject: Subject) -> int:
    """What becomes of a mutant by the tests of its module."""
    try:
        # Of a conftest that cannot be loaded pytest says the same as of a wrong option.
        importlib.import_module("tests.conftest")
    except Exception:  # whatever it is, without a mutant it is not there
        return KILLED
    collection = Collection()
    code = int(pytest.main(["-x", "-q", "--tb=no", "-p", "no:cacheprovider", *subject.tests], plugins=[collection]))
    # Tests that cannot be loaded end the run as an interruption, or as wrong usage where one was asked for by name.
    if collection.failed and code in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR):
        return KILLED
    return code


def put_in_place(path: Path, mutant: Mutant) -> None:
    """Have Python find a mutant in the file that it is of, whoever loads that and by whatever name."""
    unchanged = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if self.path == str(path):
            return compile(mutant.code, path.name, "exec")
        return unchanged(self, fullname)

    SourceFileLoader.get_code = get_code


def start(tree: Path, subject: Subject, mutant: Mutant | None) -> multiprocessing.process.BaseProcess:
    """A process of its own for `tests`."""
    process = FORK.Process(target=tests, args=(tree, subject, mutant))
    process.start()
    return process


def patience(tree: Path, subject: Subject) -> float:
    """How many seconds a mutant may take: measured by what the tests take without one, which have to pass."""
    started = 0.0
    for _ in range(2):  # the first run compiles the tests
        started = time.monotonic()
        process = start(tree, subject, None)
        process.join()
        if process.exitcode != SURVIVED:
            told = f"its tests fail as it is, with code {process.exitcode}"
            sys.exit(f"{subject.module}: {told}: pytest {' '.join(subject.tests)}")
    return (time.monotonic() - started) * PATIENCE + MORE_SECONDS


def end(process: multiprocessing.process.BaseProcess) -> None:
    """End a process, and with it what it started."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


@dataclass
class Outcome:
    """What became of the mutants of a module."""

    module: str
    mutants: int
    timeouts: int = 0
    # With the code that their tests ended with, which tells neither that they failed nor that they passed.
    untold: list[tuple[Mutant, int | None]] = field(default_factory=list)
    survivors: list[Mutant] = field(default_factory=list)
    accepted: list[Mutant] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def seen(self) -> int:
        """How many the tests see, those among them whose tests took too long."""
        return self.mutants - len(self.survivors) - len(self.accepted) - len(self.untold)

    @property
    def score(self) -> float:
        """Of 100 mutants, how many the tests see."""
        return 100 * self.seen / self.mutants

    @property
    def score_without_accepted(self) -> float:
        """Likewise of those that are not accepted."""
        return 100 * self.seen / (self.mutants - len(self.accepted))


def measure(tree: Path, subject: Subject, jobs: int, accepted: Mapping[Change, str]) -> Outcome:
    """Test every mutant of a module."""
    began = time.monotonic()
    waiting = mutants((tree / subject.path).read_text(encoding="utf-8"), subject.only)
    outcome = Outcome(subject.module, len(waiting))
    seconds = patience(tree, subject)
    running: list[Child] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                running.append(Child(start(tree, subject, mutant), mutant, time.monotonic() + seconds))
            first = min(child.deadline for child in running)
            wait([child.process.sentinel for child in running], max(first - time.monotonic(), 0))
            for child in list(running):
                if child.process.is_alive():
                    if time.monotonic() < child.deadline:
                        continue
                    outcome.timeouts += 1
                    end(child.process)
                    running.remove(child)
                    continue
                end(child.process)
                running.remove(child)
                if child.process.exitcode == SURVIVED:
                    known = (subject.module, child.mutant.was, child.mutant.becomes) in accepted
                    (outcome.accepted if known else outcome.survivors).append(child.mutant)
                elif child.process.exitcode != KILLED:
                    outcome.untold.append((child.mutant, child.process.exitcode))
    finally:
        for child in running:
            end(child.process)
    outcome.seconds = time.monotonic() - began
    return outcome


def snapshot(folder: Path) -> Path:
    """A copy of what the tests read."""
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy2(source, folder / name)
    return folder


def reasons() -> dict[Change, str]:
    """The mutants that are known to survive, each with the reason why it may."""
    rows = tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))["accepted"]
    return {(row["module"], was, becomes): row["reason"] for row in rows for was, becomes in row["mutants"]}


def report(outcomes: Sequence[Outcome]) -> str:
    """One row for each module."""
    outcome = ("killed", "timeouts", "no verdict", "survived", "accepted")
    rows: list[tuple[str, ...]] = [("module", "mutants", *outcome, "score", "without accepted", "seconds")]
    for each in outcomes:
        counts = (each.mutants, each.seen - each.timeouts, each.timeouts)
        counts += (len(each.untold), len(each.survivors), len(each.accepted))
        scores = (f"{each.score:.1f} %", f"{each.score_without_accepted:.1f} %")
        rows.append((each.module, *map(str, counts), *scores, f"{each.seconds:.0f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|", *lines[1:]])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the modules and say what the tests do not see; 1 where that is too much."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="some of " + ", ".join(subject.module for subject in SUBJECTS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many mutants at once")
    options = parser.parse_args(arguments)
    if unknown := {*options.modules} - {subject.module for subject in SUBJECTS}:
        parser.error(f"there is no module {', '.join(sorted(unknown))} among them")
    # SIGTERM is a Ctrl-C from here on: what has been started by then is ended, and the copy removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    subjects = [subject for subject in SUBJECTS if not options.modules or subject.module in options.modules]
    accepted = reasons()
    for library in LIBRARIES:
        importlib.import_module(library)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        tree = snapshot(Path(folder).resolve())
        # The same examples each time; and a mutant that is found out needs no smaller example.
        settings.register_profile(
            "mutate",
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("mutate")
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(tree / ".hypothesis")
        # Plugins that these tests do not use, schemathesis foremost, take 1.7 s of the 2.1 s of a run (2026-11-22).
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        # What is there so far is the same in every process: looking through it for garbage would copy it (0.1 s each).
        gc.freeze()
        for subject in subjects:
            outcome = measure(tree, subject, options.jobs, accepted)
            outcomes.append(outcome)
            print(f"{subject.module}: {outcome.seen} of {outcome.mutants} mutants seen", flush=True)
            for mutant in sorted(outcome.survivors, key=lambda mutant: mutant.line):
                print(f"  {subject.path}:{mutant.line}\n    - {mutant.was}\n    + {mutant.becomes}")
            for mutant, code in outcome.untold:
                print(f"  {subject.path}:{mutant.line}: ended with {code}\n    - {mutant.was}\n    + {mutant.becomes}")
    survived = {(each.module, mutant.was, mutant.becomes) for each in outcomes for mutant in each.accepted}
    stale = [row for row in accepted if row not in survived and row[0] in {each.module for each in outcomes}]
    for module, was, becomes in stale:
        print(f"{ACCEPTED.relative_to(ROOT)}: what no mutant of {module} survives by\n    - {was}\n    + {becomes}")
    print(report(outcomes))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of processor time in {options.jobs} processes at once")
    return int(bool(stale) or any(outcome.score < BAR for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
