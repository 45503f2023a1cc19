from __future__ import annotations

import base64
import io
import json
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import httpx
import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.logging import RichHandler

from mlauth import masking
from tests.support.canaries import leaks

CANARY = 'canary-7fQ/+"ü\\~&9x'


@pytest.fixture(autouse=True)
def registered(nothing_registered: None) -> None:
    masking.register([CANARY])


@pytest.mark.parametrize(
    "spelling",
    [
        CANARY,
        quote(CANARY),
        quote(CANARY, safe=""),
        quote_plus(CANARY),
        json.dumps(CANARY),
        json.dumps(CANARY, ensure_ascii=False),
        repr(CANARY),
        base64.b64encode(CANARY.encode()).decode(),
        base64.urlsafe_b64encode(CANARY.encode()).decode(),
    ],
)
def test_a_value_is_masked_in_every_spelling(spelling: str) -> None:
    masked = masking.mask(f"before {spelling} after")
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert "***" in masked
    assert spelling.strip("\"'=") not in masked


@given(before=st.binary(max_size=12), after=st.binary(max_size=12))
def test_a_value_is_masked_inside_of_longer_base64(before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + CANARY.encode() + after).decode()
    masked = masking.mask(text)
    assert "***" in masked
    # Only the characters that it shares with its neighbours may be left.
    assert len(masked) - len("***") <= (len(before) + len(after)) * 4 // 3 + 8


# The spellings of VALUE by other encoders, copied from their output.
VALUE = "canary ü~*'(1)!/?"
ENCODED = {
    "encodeURIComponent": "canary%20%C3%BC~*'(1)!%2F%3F",
    "encodeURI": "canary%20%C3%BC~*'(1)!/?",
    "URLSearchParams, URLEncoder of Java": "canary+%C3%BC%7E*%27%281%29%21%2F%3F",
    "urlencode of PHP, Uri.EscapeDataString of .NET": "canary%20%C3%BC~%2A%27%281%29%21%2F%3F",
    "lower case": "canary%20%c3%bc~%2a%27%281%29%21%2f%3f",
    "lower case, as HttpUtility of .NET": "canary+%c3%bc%7e*%27%281%29%21%2f%3f",
}


@pytest.mark.parametrize("encoded", ENCODED.values(), ids=ENCODED)
def test_a_value_is_masked_as_other_encoders_spell_it_in_a_url(encoded: str) -> None:
    masking.register([VALUE])
    assert masking.mask(f"?key={encoded}&next") == "?key=***&next"


HARD = """canary it's ü"[x]{y}|=;@<z>"""
ASKED = {
    "httpx, query": lambda: httpx.URL(f"http://h/?key={HARD}"),
    "httpx, path": lambda: httpx.URL(f"http://h/{HARD}"),
    "httpx, password": lambda: (
        httpx.URL("http://h/").copy_with(username="u", password=HARD).userinfo
    ),
    "httpx, parameter": lambda: httpx.URL("http://h/", params={"key": HARD}),
    "requests, query": lambda: requests.Request("GET", f"http://h/?key={HARD}").prepare().url,
    "requests, path": lambda: requests.Request("GET", f"http://h/{HARD}/x").prepare().url,
    "urllib3": lambda: urllib3.util.parse_url(f"http://h/?key={HARD}"),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_value_is_masked_in_the_urls_of_pythons_clients(asked: Callable[[], object]) -> None:
    masking.register([HARD])
    assert "canary" not in masking.mask(str(asked()))


@pytest.mark.parametrize("value", ["it's canary", "canary-ü", "'canary\"", "\\canary\n\t"])
def test_a_value_is_masked_as_repr_has_it_alone_and_in_a_longer_text(value: str) -> None:
    masking.register([value])
    for text in (value, f'"{value}"', f"'{value}'", f"'\"{value}"):
        for shown in (repr(text), ascii([text]), repr(text.encode()), repr({b"k": text.encode()})):
            assert "canary" not in masking.mask(shown)


def test_of_a_value_in_several_lines_each_is_masked() -> None:
    key = "-----BEGIN KEY-----\n" + "canarycanarycanary\n" * 3 + "cQ==\n-----END KEY-----\n"
    masking.register([key])
    assert masking.mask("line: canarycanarycanary") == "line: ***"
    assert masking.mask("last line: 'cQ=='") == "last line: '***'"
    for line in key.splitlines():
        assert masking.mask(line) == "***"
    assert masking.mask(key + "after") == "***after"


def test_a_value_of_many_lines_costs_a_record_no_more_than_one_of_two() -> None:
    """The number of searches through the whole text does not grow with the lines."""
    masking.register(["first line\nsecond line"])
    few = len(masking._spellings)
    masking.register(["\n".join(f"line {number:>60}" for number in range(20_000))])
    assert len(masking._spellings) <= 2 * few
    assert masking.mask(f"x line {19_999:>60} x") == "x *** x"


def test_of_two_values_that_overlap_none_leaves_its_end_visible() -> None:
    masking.register(["canary-left-shared", "shared-right-canary"])
    assert masking.mask("<canary-left-shared-right-canary>") == "<***>"
    assert masking.mask("canary-left-sharedshared-right-canary") == "******"


def test_values_can_be_registered_while_another_thread_logs() -> None:
    stop, failed = threading.Event(), []

    def log() -> None:
        try:
            while not stop.is_set():
                masking.mask("line 1\nline 22\nline 333 " * 20)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=log)
    thread.start()
    for number in range(300):
        masking.register([f"line {'1' * number}\nline {'2' * number}"])
    stop.set()
    thread.join()
    assert failed == []


def test_of_two_values_that_start_alike_none_leaves_its_end_visible() -> None:
    masking.register(["canary-one", "canary-one-and-more"])
    assert masking.mask("canary-one-and-more canary-one") == "*** ***"


def test_short_values_would_garble_every_line_and_are_left() -> None:
    masking.register(["abc", ""])
    assert masking.mask("abcdef") == "abcdef"


@pytest.fixture
def logger() -> logging.Logger:
    logger = logging.Logger("test")  # noqa: LOG001 - outside of the hierarchy
    logger.propagate = False
    return logger


def written(logger: logging.Logger, formatter: logging.Formatter | None = None) -> io.StringIO:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    return stream


def test_records_are_masked_whoever_adds_a_handler_later(logger: logging.Logger) -> None:
    masking.guard_logging()
    masking.guard_logging()  # calling it again is harmless
    stream = written(logger)
    logger.warning("key %s in %r", CANARY, {"key": CANARY})
    logger.warning(f"inline {CANARY}")  # noqa: G004
    try:
        raise ValueError(CANARY)
    except ValueError:
        logger.exception("failed")
    text = stream.getvalue()
    assert "canary" not in text
    assert "key *** in {'key': '***'}" in text
    assert "ValueError: ***" in text


def test_a_record_with_wrong_arguments_is_still_a_record(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    masking.guard_logging()
    written(logger)
    logger.warning("wrong %d", "text")
    assert "Message: 'wrong %d'" in capsys.readouterr().err


def test_wrong_arguments_of_a_log_call_are_masked(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    masking.guard_logging()
    written(logger)
    logger.warning("wrong %d", {"key": CANARY})
    logger.warning(f"{CANARY} wrong %d %d", 1)  # noqa: G004
    logger.warning("wrong %(name)s", {"key": CANARY})
    said = capsys.readouterr().err
    assert said.count("Arguments: ") == 3
    assert "{'key': '***'}" in said
    assert leaks(said, CANARY) == []


def test_fields_of_a_record_are_masked_in_the_handlers_that_exist() -> None:
    class AsJSON(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return json.dumps({"message": record.getMessage(), "key": record.__dict__["key"]})

    root = logging.getLogger("mlauth-test-fields")
    stream = written(root, AsJSON())
    masking.guard_logging()
    root.warning("text", extra={"key": CANARY})
    assert json.loads(stream.getvalue()) == {"message": "text", "key": "***"}


def test_richs_handler_shows_no_local_variables() -> None:
    output = io.StringIO()
    handler = RichHandler(
        console=Console(file=output, width=400), rich_tracebacks=True, tracebacks_show_locals=True
    )
    logger = logging.getLogger("mlauth-test-rich")
    logger.addHandler(handler)
    masking.guard_logging()
    try:
        key = CANARY
        raise ValueError(len(key))
    except ValueError:
        logger.exception("failed")
    logger.removeHandler(handler)
    assert "ValueError: 19" in output.getvalue()
    assert leaks(output.getvalue(), CANARY) == []


WRITES = """
import os, sys, threading
from mlauth import masking
masking.register([os.environ["VALUE"]])
masking.guard_output()
masking.guard_output()
secret = os.environ["VALUE"]
thread = threading.Thread(target=print, args=("from a thread", secret))
thread.start(); thread.join()
print("to stderr", secret, file=sys.stderr)
sys.stdout.flush()
data = f"as bytes {secret}\\n".encode()
assert sys.stdout.buffer.write(data) == len(data)
assert sys.stdout.buffer.write(bytearray(data)) == len(data)
assert sys.stdout.buffer.write(bytes(range(256))) == 256
assert sys.stdout.write(f"as text {secret}\\n") == len(f"as text {secret}\\n")
for wrong in (5, "text", None):
    try:
        sys.stdout.buffer.write(wrong)
    except TypeError:
        continue
    raise AssertionError(wrong)
sys.stdout.buffer.writelines([data])
sys.stdout.flush()
"""


def test_the_output_of_a_process_is_masked_and_other_bytes_stay() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES],
        env={**os.environ, "VALUE": CANARY, "PYTHONUTF8": "1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"from a thread ***\nas bytes ***\nas bytes ***\n")
    assert done.stdout.count(bytes(range(256))) == 1
    assert done.stderr == b"to stderr ***\n"
    assert leaks(done.stdout + done.stderr, CANARY) == []


def test_an_output_that_is_closed_or_not_there_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", io.StringIO())  # without bytes beneath it
    masking.guard_output()
    print(CANARY, file=sys.stderr)
    assert sys.stderr.getvalue() == "***\n"  # type: ignore[attr-defined]


def test_existing_handlers_mask_the_text_that_a_formatter_adds() -> None:
    class WithLocals(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return super().format(record) + f" locals: {record.__dict__['value']}"

    root = logging.getLogger("mlauth-test-redaction")
    stream = written(root, WithLocals())
    masking.guard_logging()
    root.warning("text", extra={"value": CANARY})
    assert stream.getvalue() == "text locals: ***\n"


def test_a_formatted_traceback_can_be_masked_too() -> None:
    try:
        raise ValueError(f"could not use {CANARY}")
    except ValueError:
        assert "canary" not in masking.mask(traceback.format_exc())
