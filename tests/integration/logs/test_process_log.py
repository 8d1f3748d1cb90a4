"""Whatever a process says is a line of its log, in the one format."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, threading, warnings
from market_data_store.logs import process
process.begin("web", sys.argv[1], sys.argv[2])
logging.getLogger("market_data_store.x").info("began", extra={"event": "begin"})
logging.getLogger("market_data_store.x").debug("hidden")
logging.getLogger("httpx").info("GET http://me:s3cret@host/")
logging.getLogger("other").warning("%d does not fit", "text")
warnings.warn("old", FutureWarning)
print("printed", "twice")
print("first part,", end=" ")
print("second part")
sys.stderr.write("error: a setting is wrong\\n")
process.at_signal("worker: Warm shutdown")
process.rename("web/2")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Odd:
    def __del__(self):
        raise OSError("in a destructor")
Odd()
raise RuntimeError("the end")
"""


def said(form: str, level: str = "info") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, form, level], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "s3cret" not in done.stderr
    if form in ("json", "logfmt"):
        assert done.stdout == ""
    return done.stderr.splitlines()


def test_every_line_parses_as_json() -> None:
    found = [json.loads(line) for line in said("json")]
    heard = [(each["level"], each["message"]) for each in found]
    assert heard[0] == ("info", "began")
    assert found[0]["event"] == "begin"
    assert ("info", "printed twice") in heard
    assert ("info", "first part, second part") in heard
    assert ("error", "a setting is wrong") in heard
    assert ("info", "worker: Warm shutdown") in heard
    assert "hidden" not in str(heard)
    assert any("FutureWarning: old" in message for _, message in heard)
    assert "The thread Thread-1 (<lambda>) ends: ZeroDivisionError" in dict(reversed(item) for item in heard)
    last = found[-1]
    assert (last["level"], last["message"], last["process"]) == ("critical", "The process ends: RuntimeError", "web/2")
    assert last["traceback"].endswith("RuntimeError: the end")
    assert [each for each in found if "in a destructor" in each.get("traceback", "")]


@pytest.mark.parametrize(("form", "beginning"), [("text", r"20"), ("logfmt", "time=20"), ("nonsense", "20")])
def test_every_line_has_its_time(form: str, beginning: str) -> None:
    lines = [line for line in said(form) if not line.startswith("  ")]
    if form == "logfmt":
        assert [line for line in lines if not line.startswith(beginning)] == []
    assert sum(line.startswith(beginning) for line in lines) >= 5


def test_a_level_hides_what_is_below() -> None:
    levels = {json.loads(line)["level"] for line in said("json", "error")}
    assert levels == {"error", "critical"}
