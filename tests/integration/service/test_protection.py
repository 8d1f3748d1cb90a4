"""What protects every answer of the web process: names, tokens, limits and headers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.processes import MDS, PYTHON, run
from support.web import TOKEN, Web, serving

from market_data_store.local.passwords import passwords_in

STATUS_TOKEN = "for-reading-only-0123"
SERVERS = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "BROKER_URL": "redis://127.0.0.1:1/0"}
READING = (
    "/",
    "/status.json",
    "/health",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/status-page/page.js",
    "/docs/",
    "/nowhere",
)
ADMIN = ("/schema/version", "/dead-letters", "/dead-letters/export", "/series?dataset=bars")


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    directory = tmp_path_factory.mktemp("development")
    with serving(directory, **SERVERS, ADMIN_TOKEN="", MDS_HOST="", MDS_ENV="development") as web:
        yield web


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """In production, with a token for reading and names of its own."""
    settings = {"MDS_STATUS_TOKEN": STATUS_TOKEN, "MDS_ALLOWED_HOSTS": "mds.example.com, .internal"}
    with serving(tmp_path_factory.mktemp("guarded"), **SERVERS, **settings) as web:
        yield web


def made_token(web: Web) -> str:
    return passwords_in(web.process.directory / ".mds").admin_token


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'anybody:{password}'.encode()).decode()}"


@pytest.mark.parametrize("host", ["evil.test", "evil.test:80", "localhost.evil.test", "127.0.0.1.evil.test", "[::1].x"])
def test_in_development_a_name_that_is_not_of_this_machine_gets_no_answer(development: Web, host: str) -> None:
    headers = {"Host": host, "Authorization": f"Bearer {made_token(development)}"}
    for path in (*READING, *ADMIN, "/healthz"):
        answer = development.client.get(path, headers=headers)
        assert (answer.status_code, list(answer.json())) == (421, ["error"]), path
    purge = development.client.post("/dead-letters/purge", headers=headers, json={"all": True, "expected": 0})
    assert purge.status_code == 421


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "a.localhost", "127.0.0.1:8081", "[::1]", "[::1]:80", "10.1.2.3"]
)
def test_names_of_this_machine_and_addresses_are_answered(development: Web, host: str) -> None:
    assert development.client.get("/healthz", headers={"Host": host}).status_code == 200


def test_in_development_the_admin_endpoints_take_the_token_that_the_store_makes(development: Web) -> None:
    for token, status in (("changeme", 401), ("", 401), ("password", 401), (made_token(development), 503)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = development.client.get("/schema/version", headers=headers)
        assert answer.status_code == status, answer.text  # 503: Postgres is away
    assert "cannot connect to" in answer.json()["error"]
    assert made_token(development) not in development.log_text()
    assert str(Path(".mds") / "passwords") in development.log_text()


@pytest.mark.parametrize("host", ["mds.example.com", "a.b.internal:443", "127.0.0.1"])
def test_the_names_of_the_setting_are_answered_and_no_others(guarded: Web, host: str) -> None:
    reader = {"Authorization": f"Bearer {STATUS_TOKEN}"}
    assert guarded.client.get("/status.json", headers={**reader, "Host": host}).status_code == 200
    for other in ("example.com", "xmds.example.com", "internal", "evil.test"):
        assert guarded.client.get("/status.json", headers={**reader, "Host": other}).status_code == 421


def test_with_a_token_for_reading_everything_but_healthz_asks_for_it(guarded: Web) -> None:
    assert guarded.client.get("/healthz").status_code == 200
    for path in (*READING, *ADMIN):
        asked = guarded.client.get(path)
        assert asked.status_code == 401, path
        assert asked.headers["WWW-Authenticate"].startswith("Basic ")
    for authorization in (f"Bearer {STATUS_TOKEN}", f"Bearer {TOKEN}", basic(STATUS_TOKEN), basic(TOKEN)):
        for path in READING:
            answer = guarded.client.get(path, headers={"Authorization": authorization})
            assert answer.status_code in (200, 404, 503), path
            assert answer.status_code != 404 or path == "/nowhere"


def test_the_token_for_reading_opens_no_admin_endpoint(guarded: Web) -> None:
    for authorization in (f"Bearer {STATUS_TOKEN}", basic(STATUS_TOKEN), basic(TOKEN)):
        for path in ADMIN:
            assert guarded.client.get(path, headers={"Authorization": authorization}).status_code == 401
    assert guarded.admin("GET", "/schema/version").status_code == 503  # Postgres is away


def test_every_answer_has_the_headers(development: Web) -> None:
    token = {"Authorization": f"Bearer {made_token(development)}"}
    for path, headers in [(path, {}) for path in (*READING, *ADMIN)] + [(path, token) for path in ADMIN]:
        answer = development.client.get(path, headers=headers)
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], path
        assert answer.headers["Referrer-Policy"] == "no-referrer", path
        assert "no-" in answer.headers["Cache-Control"], path
    assert development.client.get("/dead-letters", headers=token).headers["Cache-Control"] == "no-store"


def test_a_long_body_is_refused(guarded: Web) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    long = b'{"ids": [' + b"1," * 600_000 + b"1]}"
    for content in (long, iter([long])):  # with its length, and in chunks
        answer = httpx.post(f"{guarded.url}/dead-letters/purge", headers=headers, content=content, timeout=30)
        assert (answer.status_code, list(answer.json())) == (413, ["error"])


@pytest.mark.slow
def test_too_many_wrong_tokens_are_not_looked_at(tmp_path: Path) -> None:
    with serving(tmp_path, **SERVERS) as web:
        guesses = [web.client.get("/schema/version", headers={"Authorization": f"Bearer x{n}"}) for n in range(60)]
        statuses = [guess.status_code for guess in guesses]
        assert statuses[:20] == [401] * 20
        assert statuses.count(429) > 20
        refused = guesses[statuses.index(429)]
        assert (list(refused.json()), refused.headers["Retry-After"]) == (["error"], "1")
        assert web.client.get("/healthz").status_code == 200
        lines = web.log_text().splitlines()
        assert len([line for line in lines if "Too many wrong tokens from 127.0.0.1" in line]) < 10
        assert len([line for line in lines if "GET /schema/version" in line]) == statuses.count(401)


@pytest.mark.slow
@pytest.mark.parametrize("token", ["x", "fifteen-letters", "0123456789"])
@pytest.mark.parametrize(
    "command", [(*MDS, "migrate"), (PYTHON, "-m", "celery", "-A", "market_data_store.app", "worker")]
)
def test_a_short_token_is_one_line_of_every_process(token: str, command: tuple[str, ...], tmp_path: Path) -> None:
    refused = run(*command, directory=tmp_path, environment={**SERVERS, "ADMIN_TOKEN": token})
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: ADMIN_TOKEN: has fewer than 16 characters; set it to what `openssl rand -hex 16` prints\n"
    )


@pytest.mark.slow
def test_development_does_not_listen_for_others_without_secrets(tmp_path: Path) -> None:
    command = (PYTHON, "-m", "gunicorn", "-c", "python:market_data_store.service.gunicorn_conf", "x:y")
    for host in ("0.0.0.0", "::", "10.0.0.1"):  # noqa: S104
        settings = {**SERVERS, "MDS_ENV": "development", "MDS_HOST": host, "ADMIN_TOKEN": "changeme"}
        refused = run(*command, directory=tmp_path, environment=settings)
        assert refused.returncode != 0
        assert refused.stderr.startswith(
            f"error: MDS_HOST='{host}': with MDS_ENV=development others reach this machine"
        )
        assert refused.stderr.count("\n") == 1
