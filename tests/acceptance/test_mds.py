"""The command `mds` as a newcomer uses it: in its own process, in an empty directory."""

from __future__ import annotations

import gzip
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from support.processes import MDS, PYTHON, Process, mds, run, running
from support.waiting import wait_until
from support.web import get

from market_data_store.config.owned_files import variables
from market_data_store.local import free_port
from market_data_store.local.passwords import passwords_in

ROOT = Path(__file__).parents[2]
BARS = ROOT / "src/market_data_store/data/6EH4-1min-bars-2024-01.csv.gz"
ROWS = 29_996
LOAD_BARS = ["load", str(BARS), "--dataset", "bars", "--provider", "cme", "--symbol", "6EH4", "--interval", "1m"]


class Up(Process):
    """A running `mds up`, of worker and monitor unless it is told of ports for web and Flower."""

    def __init__(self, directory: Path, *, web_port: int = 0, flower_port: int = 0) -> None:
        ports = {"web": web_port, "flower": flower_port, "metrics": free_port()}
        command = (*MDS, "up", *(f"--{name}-port={port}" for name, port in ports.items()))
        super().__init__(*command, directory=directory)
        self.wait_for_text("Ready")

    def url(self, name: str) -> str:
        """The URL that a variable has in the file for other commands, or that of a page."""
        if name.endswith("_URL"):
            return variables(self.directory / ".mds/env")[name]
        found = re.search(rf"^{name} +(\S+)$", self.text(), re.MULTILINE)
        assert found, self.said(name)
        return found[1]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.send_signal(number)
        return self.wait(60)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"), web_port=free_port())
    yield running
    assert running.stop() == 0, running.said()


@pytest.mark.slow
def test_the_demo_stores_all_rows_and_finds_them_unchanged_the_second_time(tmp_path: Path) -> None:
    first, second = mds(tmp_path, "demo"), mds(tmp_path, "demo")
    assert first.returncode == 0, first.stdout + first.stderr
    assert second.returncode == 0, second.stdout + second.stderr
    for output in (first.stdout, second.stdout):
        assert re.search(rf"^rows sent +{ROWS:,}$", output, re.MULTILINE), output
        assert re.search(r"^dead letters +0$", output, re.MULTILINE), output
        assert re.search(r"^compared +equal to the file$", output, re.MULTILINE), output
        assert "\x1b" not in output
    assert f"rows stored   {ROWS:,} ({ROWS:,} written, 0 unchanged)" in first.stdout
    assert f"rows stored   {ROWS:,} (0 written, {ROWS:,} unchanged)" in second.stdout
    assert not (tmp_path / ".mds/env").exists()


@pytest.mark.slow
def test_the_demo_says_what_differs(tmp_path: Path) -> None:
    up = Up(tmp_path)
    with psycopg.connect(up.url("DATABASE_URL"), autocommit=True) as connection:
        assert mds(tmp_path, *LOAD_BARS[:5], "CME", *LOAD_BARS[6:]).returncode == 0
        # Newer than anything that the demo sends, and different.
        connection.execute(
            "UPDATE bars_ohlcv SET close = 9, enqueued_at = now() + interval '1 day' WHERE ts = '2024-01-01 23:01Z'"
        )
    assert up.stop(signal.SIGTERM) == 0
    demo = mds(tmp_path, "demo")
    assert demo.returncode == 1
    assert "compared      rows that differ: 1" in demo.stdout
    assert "2024-01-01 23:01: the file has (1.1076, 1.10785, 1.1076, 1.1078, 205.0)" in demo.stdout


def test_up_prints_at_most_ten_lines_and_its_addresses_last(up: Up) -> None:
    lines = up.text().partition("Ready;")[0].splitlines()
    assert len(lines) < 10, up.text()
    assert [line.split()[0] for line in lines[-5:]] == ["WEB", "METRICS", "DATABASE_URL", "BROKER_URL", "Passwords"]


def test_bars_and_quotes_load_once_and_change_nothing_again(up: Up) -> None:
    quotes = ROOT / "tests/data/usdjpy-ticks-2013-01.csv"
    load_quotes = ["load", str(quotes), "--dataset", "quotes", "--provider", "truefx", "--symbol", "USD/JPY"]
    for arguments, rows in ((LOAD_BARS, ROWS), (load_quotes, 1_000)):
        first, second = mds(up.directory, *arguments), mds(up.directory, *arguments)
        assert f"rows stored   {rows:,} ({rows:,} written, 0 unchanged)" in first.stdout, first
        assert f"rows stored   {rows:,} (0 written, {rows:,} unchanged)" in second.stdout, second
    with psycopg.connect(up.url("DATABASE_URL")) as connection:
        held = connection.execute("SELECT ts, bid, ask FROM quotes WHERE provider = 'truefx'").fetchall()
    with quotes.open() as lines:
        next(lines)
        sent = [line.strip().split(",") for line in lines]
    assert len({ts for ts, _, _ in held}) == 993  # 7 pairs of quotes share an instant
    assert sorted((ts.isoformat(), bid, ask) for ts, bid, ask in held) == sorted(
        (f"{ts[:10]}T{ts[11:]}", float(bid), float(ask)) for ts, bid, ask in sent
    )


def test_load_names_rejected_rows_and_their_letters_know_the_line(up: Up) -> None:
    file = up.directory / "mixed.ndjson.gz"
    with gzip.open(file, "wt") as lines:
        lines.write('{"when": "2024-01-02T00:00:00Z", "bid": 1, "ask": 2}\n')
        lines.write('{"when": "2024-01-02T00:00:01Z", "bid": 1e400}\n\n')
        lines.write("no JSON\n")
        lines.write('{"when": "yesterday"}\n')
    options = ["--dataset", "quotes", "--provider", "mixed", "--symbol", "X", "--map", "ts=when"]
    loaded = mds(up.directory, "load", str(file), *options)
    assert loaded.returncode == 1
    assert "line 2: bid: '1e400' is not a finite number\n" in loaded.stdout
    assert "line 4: row: expected an object, got 'no JSON'\n" in loaded.stdout
    assert "line 5: ts: 'yesterday' is not a time" in loaded.stdout
    assert "dead letters  3" in loaded.stdout
    recorded = mds(up.directory, "jobs", "--job", "mds load", "--limit", "1").stdout.splitlines()[1]
    assert re.fullmatch(
        r" *\d+ +mds load +quotes mixed +failure +\S+ \S+Z +[\d.]+ +4 +1 +3 +dead letters: 3 *", recorded
    ), recorded
    with psycopg.connect(up.url("DATABASE_URL")) as connection:
        assert connection.execute("SELECT bid, ask FROM quotes WHERE provider = 'mixed'").fetchall() == [(1.0, 2.0)]
        letters = "SELECT file, line, job FROM dead_letters WHERE dataset = 'quotes' ORDER BY line"
        (job,) = re.findall(r"^ *(\d+)", recorded)
        expected = [("mixed.ndjson.gz", line, int(job)) for line in (2, 4, 5)]
        assert connection.execute(letters).fetchall() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["load", "gone.csv", "--dataset", "bars"], "error: gone.csv: no such file"),
        (["load", "--dataset", "bars"], "Missing argument 'FILE...'"),
        (["load", "x.csv"], "Missing option '--dataset'"),
        (["load", "x.txt", "--dataset", "bars"], "error: x.txt: bars needs provider, symbol, interval, ts, open, "),
        (["load", "x.csv", "--dataset", "bars", "--map", "ts"], "--map ts: write NAME=COLUMN"),
        (["load", "x.csv", "--dataset", "bars", "--map", "zz=a"], "bars has no such field"),
        (["load", "x.csv", "--dataset", "bars", "--map", "ts=b"], "has no such column; it has a"),
        (["load", "x.csv.gz", "--dataset", "bars"], "error: x.csv.gz: damaged: "),
        (["load", "x.csv", "--dataset", "zz"], "'zz' is not one of 'bars'"),
    ],
)
def test_a_mistake_is_one_line(up: Up, arguments: list[str], message: str) -> None:
    for name in ("x.txt", "x.csv", "x.csv.gz"):
        (up.directory / name).write_bytes(b"\x1f\x8b\x08" if name.endswith(".gz") else b"a\n1\n")
    failed = mds(up.directory, *arguments)
    assert failed.returncode in (1, 2)
    assert message in failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr


@pytest.mark.parametrize("command", [["migrate", "--wait", "0"], ["demo"], ["up"]], ids="-".join)
def test_an_unreachable_server_is_one_line_without_its_password(tmp_path: Path, command: list[str]) -> None:
    url = "postgresql://me:s3cret@127.0.0.1:9/market"
    failed = mds(tmp_path, *command, DATABASE_URL=url, BROKER_URL="redis://:s3cret@127.0.0.1:9/0")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: cannot connect to postgresql://***@127.0.0.1:9/market: ")
    assert failed.stderr.count("\n") == 1
    assert "s3cret" not in failed.stdout + failed.stderr


def test_an_unreachable_broker_is_one_line_without_its_password(up: Up) -> None:
    failed = mds(up.directory, *LOAD_BARS, BROKER_URL="redis://:s3cret@127.0.0.1:9/0")
    assert failed.returncode == 1
    assert "redis://***@127.0.0.1:9/0" in failed.stderr
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert "s3cret" not in failed.stdout + failed.stderr


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    failed = mds(tmp_path, "status", MDS_BATCH_ROWS="many")
    assert failed.returncode == 2
    assert failed.stderr == (
        "error: MDS_BATCH_ROWS='many': input should be a valid integer, unable to parse string as an integer\n"
    )
    unset = mds(tmp_path, "migrate")
    assert unset.returncode == 2
    assert unset.stderr.startswith("error: DATABASE_URL is not set; ")


def test_migrate_goes_down_and_up_again(up: Up, tmp_path: Path) -> None:
    url = up.url("DATABASE_URL")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS other")
        connection.execute("CREATE DATABASE other")
    other = url.replace("/market_data", "/other")
    steps = [
        ([], "none -> 0010", 0),
        (["--status"], "revision 0010 of 0010", 0),
        (["--down", "--yes"], "0010 -> 0009", 0),
    ]
    for arguments, said, code in [*steps, (["--status"], "revision 0009 of 0010", 1), ([], "0009 -> 0010", 0)]:
        done = mds(tmp_path, "migrate", *arguments, DATABASE_URL=other)
        assert (done.returncode, said in done.stdout) == (code, True), done
    refused = mds(tmp_path, "migrate", "--down", DATABASE_URL=other)
    assert refused.returncode == 2
    assert "partitions_wanted: 0 rows" in refused.stderr
    assert "give --yes" in refused.stderr
    assert "revision 0010 of 0010" in mds(tmp_path, "migrate", "--status", DATABASE_URL=other).stdout


def test_status_shows_database_queue_and_workers(up: Up) -> None:
    status = mds(up.directory, "status")
    assert status.returncode == 0, status
    first, *others = status.stdout.splitlines()
    assert re.fullmatch("status +ok: producers send at full rate", first)
    said = {line[:14].rstrip(): line[14:] for line in others}
    assert re.fullmatch(r"postgresql://\S+ answers in [\d.]+ ms", said["database"])
    assert re.fullmatch(r"revision \d+, up to date", said["schema"])
    assert re.fullmatch(r"0 waiting \(0% of 10,000\), held by workers: 0", said["queue"])
    assert said["level"] == "ok"
    assert re.fullmatch(r"[\d,]+(, the oldest of \S+ \S+Z)?", said["dead letters"])
    assert re.fullmatch(r"1 \(\S+@\S+\)", said["workers"])
    assert re.fullmatch(r"0 waiting \(0% of 10,000\), .*; level ok; workers 1", said["backfill"])
    assert re.fullmatch(r"ok \d+ s ago, redis: delivered, redis-backfill: delivered", said["feedback"])


def test_status_watch_keeps_refreshing(up: Up) -> None:
    with running(*MDS, "status", "--watch", directory=up.directory) as watching:
        watching.wait_for_line(3)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    for line in watching.lines()[:3]:
        assert line.startswith("status ok: producers send at full rate, database postgresql://")
        assert ", queue 0 waiting (0% of 10,000), held by workers: 0, held no dataset, level ok, workers 1 (" in line
        assert re.search(r", feedback ok \d+ s ago, redis: delivered, redis-backfill: delivered$", line)


def test_the_commands_and_the_code_of_the_readme_work(up: Up) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    commands = [line for kind, text in blocks if not kind for line in text.splitlines() if line.startswith("mds ")]
    programs = [text for kind, text in blocks if kind == "python"]
    assert len(commands) == 4
    assert len(programs) == 2
    (up.directory / "examples").symlink_to(ROOT / "examples")  # as in a checkout
    for command in commands:
        done = mds(up.directory, *command.split()[1:])
        assert done.returncode == 0, done
    for program in programs:
        code = f"BROKER_URL = {up.url('BROKER_URL')!r}\n{program}\nif 'result' in globals(): print(result.get())"
        done = run(PYTHON, "-c", code, directory=up.directory)
        assert done.returncode == 0, done
        if "send_task" in program:
            counts = json.loads(done.stdout.replace("'", '"'))
            assert sum(counts.values()) == 1
            assert counts["rejected"] == 0


@pytest.mark.parametrize("document", ["README.md", "docs/http.md"])
def test_each_curl_command_in_the_documents_gets_the_documented_answer(up: Up, document: str) -> None:
    text = (ROOT / document).read_text().replace("http://127.0.0.1:8081", up.url("WEB"))
    settings = [line for line in text.splitlines() if line.startswith("A=")]
    commands = [line for line in text.splitlines() if line.startswith("curl ")]
    assert len(commands) >= 4
    token = passwords_in(up.directory / ".mds").admin_token
    for command in commands:
        said = re.search(r"# (\d{3})", command)
        assert said, command
        script = "\n".join([*settings, command.replace("curl ", "curl -sS -o answer -w '%{http_code}' ", 1)])
        done = run("bash", "-c", script, directory=up.directory, environment={"ADMIN_TOKEN": token})
        assert done.stdout == said[1], (command, done.stderr, (up.directory / "answer").read_text())


def test_a_second_store_in_the_same_directory_is_refused(up: Up) -> None:
    refused = mds(up.directory, "demo")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: another `mds up` is using ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_mds_up_ends_its_processes_end_and_the_data_stay(tmp_path: Path, number: signal.Signals) -> None:
    # Web and Flower once, where nobody is left to end them.
    with_pages = number is signal.SIGKILL
    ports = {"web_port": free_port(), "flower_port": free_port()} if with_pages else {}
    up = Up(tmp_path, **ports)
    if with_pages:
        assert (up.url("WEB"), up.url("FLOWER")) == tuple(f"http://127.0.0.1:{p}" for p in ports.values())
        assert get(f"{up.url('WEB')}/healthz").json()["service"] == "market-data-store"
        user, _, password = passwords_in(tmp_path / ".mds").flower.partition(":")
        assert get(f"{up.url('FLOWER')}/api/workers").status_code == 401
        assert get(f"{up.url('FLOWER')}/api/workers", auth=(user, password)).status_code == 200
    # Postgres, Valkey, worker, monitor; web, Flower.
    assert len(psutil.Process(up.pid).children()) == (6 if with_pages else 4)
    started = up.descendants()
    urls = [up.url(name) for name in ("DATABASE_URL", "BROKER_URL")]
    file = tmp_path / "one.csv"
    file.write_text("ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n")
    assert mds(tmp_path, "load", str(file), "--dataset", "signals").returncode == 0
    code = up.stop(number)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0), up.said()
    wait_until(lambda: not any(map(is_alive, started)), "all have ended", timeout_s=30)
    again = Up(tmp_path)
    assert [again.url(name) for name in ("DATABASE_URL", "BROKER_URL")] == urls, "the ports stay"
    with psycopg.connect(again.url("DATABASE_URL")) as connection:
        assert connection.execute("SELECT value FROM signals").fetchall() == [(1.0,)]
    assert again.stop() == 0


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option in ("--web-port", "--flower-port"):
            others = [name for name in ("--web-port=0", "--flower-port=0") if not name.startswith(option)]
            refused = mds(tmp_path, "up", option, str(port), *others)
            assert refused.returncode == 1
            assert refused.stderr == f"error: port {port}: Address already in use; choose another with {option}\n"


@pytest.mark.slow
def test_mds_up_ends_when_its_worker_ends(tmp_path: Path) -> None:
    up = Up(tmp_path)
    (worker,) = (child for child in psutil.Process(up.pid).children() if "celery" in " ".join(child.cmdline()))
    worker.kill()
    assert up.wait(60) == 1
    assert "error: worker ended with status -9" in up.text()


def test_a_wrong_header_is_one_line_and_nothing_is_sent(up: Up) -> None:
    file = up.directory / "wrong.csv"
    with file.open("w") as lines:
        lines.write("when,o1,h1,l1,c1\n")
        lines.writelines(
            f"2024-01-02T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z,1,2,0,1\n" for n in range(200_000)
        )
    arguments = ["load", str(file), "--dataset", "bars", "--provider", "wrong", "--symbol", "X", "--interval", "1s"]
    refused = mds(up.directory, *arguments)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert "bars needs open, high, low, close; give --map open=COLUMN" in refused.stderr
    with psycopg.connect(up.url("DATABASE_URL")) as connection:
        assert connection.execute("SELECT count(*) FROM bars_ohlcv WHERE provider = 'wrong'").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM dead_letters WHERE dataset = 'bars'").fetchone() == (0,)


def test_many_rejects_are_a_few_lines(up: Up) -> None:
    file = up.directory / "many.csv"
    rows = (
        f"2024-01-02T00:{n // 60:02}:{n % 60:02}Z,2,5,1,{'x' * (n % 25 + 1) if n % 3 == 0 else 3}\n" for n in range(900)
    )
    file.write_text("timestamp,open,high,low,close\n" + "".join(rows))
    arguments = ["load", str(file), "--dataset", "bars", "--provider", "many", "--symbol", "X", "--interval", "1s"]
    stopped = mds(up.directory, *arguments, "--max-errors", "10")
    assert stopped.returncode == 1
    assert "300 of 900 rows would be rejected, and --max-errors is 10; nothing was sent" in stopped.stderr
    dry = json.loads(mds(up.directory, *arguments, "--dry-run", "--json").stdout)
    assert (dry["rows"], dry["rows_with_problems"]) == (900, 300)
    assert dry["first_rows"][0]["close"] == 3.0
    assert len(dry["first_rows"]) == 5
    loaded = mds(up.directory, *arguments, "--json")
    assert loaded.returncode == 1
    outcome = json.loads(loaded.stdout)
    assert (outcome["written"], outcome["rejected"]) == (600, 300)
    (group,) = outcome["rejects"]
    assert (group["rows"], group["reason"]) == (300, "close: … is not a number")
    assert group["first"][0] == [2, "close: 'x' is not a number"]
    with psycopg.connect(up.url("DATABASE_URL")) as connection:
        letters = connection.execute("SELECT min(line), max(line), count(*) FROM dead_letters WHERE file = 'many.csv'")
        assert letters.fetchone() == (2, 899, 300)


def test_the_readers_are_listed(up: Up) -> None:
    listed = mds(up.directory, "load", "--list-readers")
    assert listed.returncode == 0
    assert re.search(r"^binance-klines +bars +Binance klines", listed.stdout, re.MULTILINE)
