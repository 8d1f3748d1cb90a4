"""Traces from `StoreClient.write` to the commit, as a collector gets them from a real producer and a real worker."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, HoldBack, StartWorker
from support.otlp import Collector, Seen, collecting
from support.processes import PYTHON, mds, run
from support.waiting import wait_until

only_redis = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)

#: Writes bars, each in a message, and says which packages of OpenTelemetry it has imported.
WRITER = """
import json, logging, sys
logging.basicConfig(format="%(message)s")
from market_data_store import StoreClient
# redis-py imports others of them if they are installed.
PARTS = tuple(f"opentelemetry.{part}" for part in ("sdk.trace", "exporter", "instrumentation", "propagate"))
messages = int(sys.argv[1])
row = {"provider": "p", "symbol": "SECRETSYMBOL", "interval": "1m", "open": 1, "high": 2, "low": 1, "close": 2}
with StoreClient(max_rows=1) as store:
    store.write("bars", [{**row, "ts": 1_700_000_000 + 60 * n} for n in range(messages)])
print(json.dumps(sorted(name for name in sys.modules if name.startswith(PARTS))))
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def write(directory: Path, broker_url: str, variables: dict[str, str], messages: int = 1) -> tuple[list[str], str]:
    """What the writer has imported, and what it logged."""
    environment = {"BROKER_URL": broker_url, **variables}
    done = run(PYTHON, "-c", WRITER, str(messages), directory=directory, environment=environment)
    assert done.returncode == 0, done
    return json.loads(done.stdout), done.stderr


def bars(database: Connection) -> int:
    return database.execute("SELECT FROM bars_ohlcv").rowcount


def the_one(spans: list[Seen]) -> Seen:
    (span,) = spans
    return span


def test_one_trace_goes_from_the_write_to_the_commit(
    collector: Collector, broker_url: str, database: Connection, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker(**collector.variables)
    write(tmp_path, broker_url, collector.variables)
    commit = the_one(collector.wait_for("commit bars"))
    run_ = the_one(collector.wait_for("run/store.write"))
    batch = the_one(collector.wait_for("batch"))
    written, sent, publish = (
        the_one(collector.wait_for(name)) for name in ("write bars", "send bars", "apply_async/store.write")
    )
    way = [written, sent, publish, run_, batch, commit]
    assert [span.parent for span in way] == ["", *(span.id for span in way[:-1])]
    assert {span.trace for span in way} == {written.trace}
    assert not any(span.is_error for span in way)
    assert [span.service for span in way] == ["mds-client"] * 3 + ["mds-worker"] * 3
    assert (written.facts["store.rows"], commit.facts["store.written"]) == (1, 1)
    assert run_.facts["store.outcome"] == "written"
    assert run_.facts["messaging.message.id"] == publish.facts["messaging.message.id"]
    assert bars(database) == 1
    assert "SECRETSYMBOL" not in repr(collector.spans)


@only_redis
def test_a_batch_links_to_the_messages_that_are_merged_in_it(
    collector: Collector,
    broker_url: str,
    writes_held_back: HoldBack,
    database: Connection,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """A worker that ends exports what it has: here its next export would be in ten minutes."""
    worker = start_worker(**{**collector.variables, "OTEL_BSP_SCHEDULE_DELAY": "600000"})
    with writes_held_back() as until_held:
        write(tmp_path, broker_url, collector.variables, messages=40)
        until_held(2)
    wait_until(lambda: bars(database) == 40, "all are written")
    assert collector.named("batch") == []
    worker.container.kill("SIGTERM")
    runs = collector.wait_for("run/store.write", 40)
    collector.wait_for("batch")
    batches = collector.named("batch")
    assert max(len(batch.links) for batch in batches) > 1, "some are merged"
    assert sorted(link for batch in batches for link in batch.links) == sorted(span.id for span in runs)
    for batch in batches:
        of_batch = [span for span in runs if span.id in batch.links]
        assert batch.parent in batch.links, "it belongs to the trace of one of them"
        assert all(batch.id in span.links for span in of_batch if span.id != batch.parent), "the others link to it"
    assert {span.trace for span in runs} == {the_one(collector.wait_for("write bars")).trace}


@only_redis
def test_any_message_is_written_whatever_it_says_of_its_trace(
    collector: Collector,
    broker_url: str,
    database_url: str,
    producer: Celery,
    database: Connection,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """Protocols 1 and 2, headers that name no trace, and a letter that is replayed, whose header is signed."""
    start_worker(**collector.variables)
    rows = [{"provider": "p", "symbol": "S", "name": "n", "ts": 1_700_000_000, "value": 1.5}]
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    good = f"00-{trace}-00f067aa0ba902b7-01"
    for number, header in enumerate([good, "00-nothing", "x" * 5_000, 7, {"a": [1]}, ""]):
        headers = {"traceparent": header, "tracestate": header, "baggage": "symbol=S"}
        sent = [{**rows[0], "ts": 1_700_000_000 + number}]
        producer.send_task(TASK, args=["signals", sent], queue=QUEUE, headers=headers, ignore_result=True)
    producer.conf.task_protocol = 1
    for number in (10, 11):
        headers = {"traceparent": good} if number == 11 else {}
        sent = [{**rows[0], "ts": 1_700_000_000 + number}]
        producer.send_task(TASK, args=["signals", sent], queue=QUEUE, headers=headers, ignore_result=True)
    producer.conf.task_protocol = 2
    stored = "SELECT FROM signals"
    wait_until(lambda: database.execute(stored).rowcount == 8, "all are written")
    assert database.execute("SELECT FROM dead_letters").rowcount == 0
    wait_until(lambda: len([s for s in collector.named("run/store.write") if s.trace == trace]) == 2, "both go on")
    assert len(collector.named("run/store.write")) == 2, "a message without a trace has no span of its own"

    bad = [{**rows[0], "value": "no number"}]
    producer.send_task(
        TASK,
        args=["signals", bad],
        queue=QUEUE,
        headers={"traceparent": good, "enqueued_at": 1.7e9},
        ignore_result=True,
    )
    wait_until(lambda: database.execute("SELECT FROM dead_letters").rowcount == 1, "a row is refused")
    servers = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    command = ("dead-letters", "replay", "--all", "--set", "value=2.5")
    replayed = mds(tmp_path, *command, **servers, **collector.variables)
    assert replayed.returncode == 0, replayed
    assert database.execute("SELECT FROM dead_letters").rowcount == 0
    replay = the_one([span for span in collector.wait_for(f"apply_async/{TASK}") if span.service == "mds-dead-letters"])
    wait_until(lambda: replay.id in {span.parent for span in collector.named(f"run/{TASK}")}, "the replay is traced")


@only_redis
def test_traces_that_are_off_cost_no_import(broker_url: str, database: Connection, tmp_path: Path) -> None:
    variables = {"OTEL_SERVICE_NAME": "feed", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert write(tmp_path, broker_url, variables) == ([], "")
    assert write(tmp_path, broker_url, {**variables, "OTEL_TRACES_EXPORTER": "none"}) == ([], "")


@only_redis
def test_a_collector_that_hangs_or_is_away_is_said_once_and_delays_nobody(
    broker_url: str, database: Connection, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://user:s3cret@127.0.0.1:{hanging.getsockname()[1]}"
        began = time.monotonic()
        write(tmp_path, broker_url, {"OTEL_EXPORTER_OTLP_ENDPOINT": url})
        assert time.monotonic() - began < 15.0
    _, said = write(
        tmp_path, broker_url, {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}, messages=3
    )
    assert said.count("\n") <= 1, said
    assert "s3cret" not in said


@only_redis
def test_what_keeps_a_process_from_tracing_is_one_line(broker_url: str, database: Connection, tmp_path: Path) -> None:
    imported, said = write(tmp_path, broker_url, {"OTEL_TRACES_EXPORTER": "zipkin"})
    assert (imported, said) == ([], "OTEL_TRACES_EXPORTER='zipkin': use otlp, console or none; nothing is traced\n")
    missing = "import sys; sys.modules['opentelemetry'] = None\n"
    done = run(
        PYTHON,
        *("-c", missing + WRITER.replace("PARTS = tuple(", "PARTS = tuple("), "1"),
        directory=tmp_path,
        environment={"BROKER_URL": broker_url, "OTEL_TRACES_EXPORTER": "otlp"},
    )
    assert done.returncode == 0, done
    assert done.stderr.count("\n") == 1
    assert "pip install opentelemetry-sdk" in done.stderr
