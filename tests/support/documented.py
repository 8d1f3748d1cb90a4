"""The command lines of the documents, and which of them a test runs where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("examples/*.md"),
    *ROOT.glob("benchmarks/*.md"),
]
_PROGRAMS = (
    "mds|celery|curl|docker|git|heroku|honcho|make|pip|psql|pytest|python3?|rabbitmqctl|systemctl|useradd|redis-cli|cp"
)
#: A line that runs a program, perhaps with variables in front of it; `$ ` begins it where a block shows output too.
_COMMAND = re.compile(rf"(?:[A-Z_]+=(?:\$\(.*?\)|\S)+ +)*(?:\S*/)?(?:{_PROGRAMS})(?: .*)?")
#: The languages of blocks that have commands.
_SHELLS = ("", "sh", "bash", "shell", "console")
#: By document that has commands for a local store: what its commands are run with. Other commands are in `ELSEWHERE`.
RUN = (
    "README.md",
    "docs/reading.md",
    "examples/README.md",
    "docs/files.md",
    "docs/own-datasets.md",
    "docs/dead-letters.md",
    "docs/jobs.md",
    "docs/pipeline.md",
    "docs/scale.md",
)
#: Commands that are not run with those of `RUN`, by how they begin, and why not.
ELSEWHERE = {
    "python3 -m venv": "installs the package",
    "pip install": "installs packages",
    ".venv/bin/pip install": "installs packages",
    "mds load FILE": "the form of the command; the examples below it are run",
    "EDITOR=": "edits a letter; tests/integration/dead_letters/test_edited_letters.py",
    "mds up": "runs until it is ended; tests/acceptance/test_mds.py",
    "curl ": "tests/acceptance/test_mds.py compares each answer",
    "python -c": "declares a queue on RabbitMQ; tests/integration/transport/test_rabbitmq.py",
    "rabbitmqctl": "needs the administrator of a RabbitMQ; tests/integration/transport/test_rabbitmq.py",
    "mds top": "runs until it is ended; tests/integration/cli/test_top.py",
    "mds doctor": "tests/integration/cli/test_doctor.py",
    "mds partitions": "needs partitions; tests/integration/cli/test_partitions.py",
    "mds release": "tests/integration/cli/test_doctor.py",
    "mds migrate && mds grants |": "needs psql; tests/acceptance/test_least_rights.py runs the statements",
    "honcho start": "tests/acceptance/test_procfile.py runs the Procfile",
    "heroku ": "needs an account; tests/acceptance/test_platform.py runs what Heroku runs",
    "git push": "needs an account",
    "useradd": "changes the machine; tests/integration/test_systemd.py",
    "cp -r deploy/systemd": "changes the machine; tests/integration/test_systemd.py",
    "systemctl": "changes the machine; tests/integration/test_systemd.py",
    "docker compose": "needs Docker; tests/unit/test_deploy.py compares the file with the Procfile",
    "psql ": "needs Citus",
    "EVENT_BUS_BACKEND=": "market-data-pipeline's; tests/contract/test_pipeline.py",
    "make ": "the tests themselves",
    ".venv/bin/python -m benchmarks": "takes minutes on an idle machine; tests/acceptance/test_benchmark_gate.py",
}
#: Of a command that does not end with 0: how it ends.
STATUS = {
    "mds load bad.csv --dataset bars --provider ibkr --symbol AAPL --interval 1m": 1,
    "mds load ES.csv --dataset bars --provider quandl --symbol ES1 --interval 1d": 2,
    "mds load bars.csv --dataset bars --provider p --symbol X --interval 1m": 1,
    "mds dead-letters replay --dataset bars": 1,
}


def commands(document: Path) -> Iterator[str]:
    """The command lines in the fenced blocks of a document; a line that ends with a backslash goes on in the next."""
    for language, block in blocks(document):
        if language not in _SHELLS:
            continue
        lines = re.sub(r"\\\n *", "", block).splitlines()
        shown = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        yield from shown or (line for line in lines if _COMMAND.fullmatch(line))


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """The fenced blocks: language and content."""
    language, content = None, ""
    for line in document.read_text().splitlines(keepends=True):
        if line.startswith("```"):
            if language is not None:
                yield language, content
            language, content = (line.strip("`\n ") if language is None else None), ""
        elif language is not None:
            content += line


def elsewhere(command: str) -> str | None:
    """Why a command is not run with those of its document; None if it is."""
    return next((reason for start, reason in ELSEWHERE.items() if command.startswith(start)), None)


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()
