"""Every command line of the documents is run by a test, or there is a reason why not."""

from __future__ import annotations

import pytest
from support.documented import DOCUMENTS, ELSEWHERE, ROOT, RUN, STATUS, commands, elsewhere, name_of

EVERY = [(name_of(document), command) for document in DOCUMENTS for command in commands(document)]


def test_the_documents_have_commands() -> None:
    assert len(EVERY) > 50
    assert {"mds status", "mds series", "cmp bars.csv.gz again.csv.gz && echo equal"} <= {each for _, each in EVERY}


@pytest.mark.parametrize(("document", "command"), EVERY)
def test_a_command_is_run_or_there_is_a_reason(document: str, command: str) -> None:
    assert document in RUN or elsewhere(command)


def test_a_reason_names_a_test_that_is_there() -> None:
    named = [word for reason in ELSEWHERE.values() for word in reason.split() if word.startswith("tests/")]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_nothing_is_listed_that_no_document_has() -> None:
    assert [start for start in ELSEWHERE if not any(command.startswith(start) for _, command in EVERY)] == []
    assert STATUS.keys() <= {command for _, command in EVERY}
    assert [name for name in RUN if not any(document == name and not elsewhere(c) for document, c in EVERY)] == []
