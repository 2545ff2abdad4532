"""Migrations: in order, once, whole or not at all, whoever runs them and wherever they fail.

Twelve at once, one that is killed between two statements of a file, and readers behind one that waits for its lock are
in tests/faults/migrations.py.
"""

from __future__ import annotations

import re
import subprocess
import sys

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from local.schema import SCHEMA, dump
from tests.conftest import ROOT, migrate

NAMES = [migration.name for migration in migrate.migrations()]


def query(url: str, statement: str):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.fixture
def folder(tmp_path):
    """A folder with two migrations of two statements each."""
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE a (x int);\nINSERT INTO a VALUES (1);")
    (tmp_path / "0002_two.sql").write_text("ALTER TABLE a ADD COLUMN y int;\nUPDATE a SET y = 2;")
    return tmp_path


def test_a_second_run_changes_nothing(new_database):
    url = new_database(migrated=False)
    assert migrate.migrate(url) == NAMES
    schema = dump(url)
    assert migrate.migrate(url) == []
    assert dump(url) == schema


def test_the_schema_file_is_what_the_migrations_add_up_to(new_database):
    url = new_database()
    written, made = SCHEMA.read_text(), dump(url)
    if query(url, "SELECT current_setting('server_version_num')::integer < 180000") == [(True,)]:
        # It has a way of its own to fold text; tests/integration/test_names.py says that both are one.
        written, made = (
            re.sub(r"CREATE FUNCTION registry\.fold\(.*?;\n", "", text, flags=re.DOTALL) for text in (written, made)
        )
    assert written == made, "run `make schema`"


@pytest.mark.parametrize("last", range(1, 22))
def test_a_run_that_is_cut_off_after_any_statement_leaves_each_migration_whole_or_absent(new_database, folder, last):
    """Its server process is ended after the first thing that the run sends, the second, ... until a run comes through.

    A whole file is one of these.
    """
    url = new_database(migrated=False)
    statements = 0
    real = psycopg.Connection.execute

    def execute(connection, *arguments, **keywords):
        nonlocal statements
        result = real(connection, *arguments, **keywords)
        statements += 1
        if statements == last:
            query(url, f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")
        return result

    def query(url: str, statement: str):
        with psycopg.connect(url, autocommit=True) as connection:
            return real(connection, statement.encode()).fetchall()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", execute)
        try:
            applied = migrate.migrate(url, folder)
        except psycopg.OperationalError:
            assert statements == last
        else:
            assert statements <= last
            assert len(applied) == 2
    ledger = query(url, "SELECT to_regclass('registry.migrations') IS NOT NULL")[0][0]
    versions = query(url, "SELECT version FROM registry.migrations ORDER BY 1") if ledger else []
    columns = query(url, "SELECT column_name FROM information_schema.columns WHERE table_name = 'a' ORDER BY 1")
    assert len(columns) == len(versions)
    migrate.migrate(url, folder)
    assert query(url, "SELECT x, y FROM a") == [(1, 2)]


def test_a_migration_that_fails_undoes_itself_and_says_so(new_database, folder):
    (folder / "0003_three.sql").write_text("CREATE TABLE b ();\nSELECT 1 / 0;")
    url = new_database(migrated=False)
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate.migrate(url, folder)
    assert query(url, "SELECT to_regclass('b')") == [(None,)]
    assert query(url, "SELECT max(version) FROM registry.migrations") == [(2,)]


def test_an_applied_migration_that_was_edited_is_refused(new_database, folder):
    url = new_database(migrated=False)
    migrate.migrate(url, folder)
    (folder / "0001_one.sql").write_text("CREATE TABLE a (x bigint);")
    with pytest.raises(migrate.MigrationError, match="0001_one was changed"):
        migrate.migrate(url, folder)


def test_a_database_from_the_future_is_refused(new_database, folder):
    url = new_database(migrated=False)
    migrate.migrate(url, folder)
    (folder / "0002_two.sql").unlink()
    with pytest.raises(migrate.MigrationError, match="newer than this code"):
        migrate.migrate(url, folder)


def test_a_gap_in_the_numbers_is_refused(folder):
    (folder / "0002_two.sql").rename(folder / "0003_two.sql")
    with pytest.raises(migrate.MigrationError, match="must start with 0002_"):
        migrate.migrations(folder)


@pytest.mark.parametrize(
    "line", ["-- locks:", "-- locks: a", "-- locks: registry.a; DROP TABLE x", "-- locks: registry.a,"]
)
def test_a_line_of_locks_that_names_no_tables_is_refused(new_database, folder, line):
    (folder / "0003_odd.sql").write_text(f"{line}\nSELECT 1;\n")
    with pytest.raises(migrate.MigrationError, match="write `-- locks: schema"):
        migrate.migrate(new_database(migrated=False), folder)


def test_the_right_to_create_schemas_is_enough(new_database):
    url = new_database(migrated=False)
    name = conninfo_to_dict(url)["dbname"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE deployer_of_{name} LOGIN PASSWORD 'x'".encode())
        connection.execute(f"GRANT CREATE ON DATABASE {name} TO deployer_of_{name}".encode())
        assert migrate.migrate(make_conninfo(url, user=f"deployer_of_{name}", password="x")) == NAMES
        # Roles are the server's, which may be somebody's own.
        connection.execute(f"DROP OWNED BY deployer_of_{name} CASCADE".encode())
        connection.execute(f"DROP ROLE deployer_of_{name}".encode())


def test_the_command_migrates_and_reports(new_database):
    url = new_database(migrated=False)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "sql" / "migrate.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    first = run(url)
    assert (first.returncode, first.stdout.splitlines()) == (0, [f"applied {name}" for name in NAMES])
    again = run(DATABASE_URL=url)
    assert (again.returncode, again.stdout) == (0, "up to date\n")
    nowhere = run()
    assert nowhere.returncode == 1
    assert "Say which database" in nowhere.stderr
    refused = run("postgresql://127.0.0.1:1/none")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Not migrated: ")
