"""Servers at another door, for tests: with TLS, which not all have compiled in, and a throwaway authority; on IPv6."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from support.processes import run
from support.requirements import missing


@dataclass(frozen=True)
class Certificates:
    """PEM files: of the authority, and of a server on 127.0.0.1 and localhost."""

    authority: Path
    certificate: Path
    key: Path


def certificates(directory: Path, host: str = "IP:127.0.0.1,DNS:localhost") -> Certificates:
    """Made anew, valid for a day, for this `subjectAltName`."""
    if not shutil.which("openssl"):
        missing("openssl is not installed; on Debian: apt-get install openssl")
    made = Certificates(directory / "authority.pem", directory / "server.pem", directory / "server.key")
    authority_key = directory / "authority.key"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        *["req", "-x509", *key, "-keyout", authority_key, "-out", made.authority, "-days", "1"],
        *["-subj", "/CN=Test authority", "-addext", "keyUsage=critical,keyCertSign"],
    )
    request, names = directory / "server.csr", directory / "names.cnf"
    _openssl("req", *key, "-keyout", made.key, "-out", request, "-subj", "/CN=Test server")
    names.write_text(f"subjectAltName={host}\n")
    _openssl(
        *["x509", "-req", "-in", request, "-CA", made.authority, "-CAkey", authority_key, "-CAcreateserial"],
        *["-out", made.certificate, "-days", "1", "-extfile", names],
    )
    return made


def _openssl(*arguments: object) -> None:
    done = run("openssl", *map(str, arguments), directory=Path("/"))
    assert done.returncode == 0, done


@contextmanager
def tls_in_front_of(port: int, files: Certificates) -> Iterator[int]:
    """A port of 127.0.0.1 that speaks TLS, and passes what it is told to the server on the given port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with in_front_of(port, "127.0.0.1", context) as own:
        yield own


@contextmanager
def ipv6_in_front_of(port: int) -> Iterator[int]:
    """A port of ::1 that passes what it is told to the server on the given port of 127.0.0.1."""
    with in_front_of(port, "::1") as own:
        yield own


@contextmanager
def in_front_of(port: int, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port of this host that passes what it is told to the server on the given port, until the end of the block."""
    with asyncio.Runner() as runner:
        passing = _Passing(port)
        server = runner.run(asyncio.start_server(passing, host, 0, ssl=context))
        thread = threading.Thread(target=runner.run, args=(passing.until_stopped(server),))
        thread.start()
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            runner.get_loop().call_soon_threadsafe(passing.stop.set)
            thread.join()


class _Passing:
    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.stop = asyncio.Event()

    async def until_stopped(self, server: asyncio.Server) -> None:
        await self.stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
            there = asyncio.ensure_future(_copy(reader, server_writer))
            back = asyncio.ensure_future(_copy(server_reader, writer))
            try:
                await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task, end in ((there, server_writer), (back, writer)):
                    task.cancel()
                    end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
