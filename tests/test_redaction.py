from __future__ import annotations

import base64
import io
import json
import logging
import traceback
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlauth import redaction

CANARY = 'canary-7fQ/+"ü\\~&9x'


@pytest.fixture(autouse=True)
def registered(nothing_registered: None) -> None:
    redaction.register([CANARY])


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
    masked = redaction.mask(f"before {spelling} after")
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert "***" in masked
    assert spelling.strip("\"'=") not in masked


@given(before=st.binary(max_size=12), after=st.binary(max_size=12))
def test_a_value_is_masked_inside_of_longer_base64(before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + CANARY.encode() + after).decode()
    masked = redaction.mask(text)
    assert "***" in masked
    # At most the characters that it shares with its neighbours are left of it.
    assert len(masked) - len("***") <= (len(before) + len(after)) * 4 // 3 + 8


def test_of_a_value_in_several_lines_each_is_masked() -> None:
    key = "-----BEGIN KEY-----\n" + "canarycanarycanary\n" * 3 + "-----END KEY-----\n"
    redaction.register([key])
    assert redaction.mask("line: canarycanarycanary") == "line: ***"


def test_of_two_values_that_start_alike_none_leaves_its_end_visible() -> None:
    redaction.register(["canary-one", "canary-one-and-more"])
    assert redaction.mask("canary-one-and-more canary-one") == "*** ***"


def test_short_values_would_garble_every_line_and_are_left() -> None:
    redaction.register(["abc", ""])
    assert redaction.mask("abcdef") == "abcdef"


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
    redaction.guard_logging()
    redaction.guard_logging()  # again is harmless
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
    redaction.guard_logging()
    written(logger)
    logger.warning("wrong %d", "text")
    assert "Message: 'wrong %d'" in capsys.readouterr().err


def test_what_a_formatter_adds_is_masked_in_the_handlers_that_exist() -> None:
    class WithLocals(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return super().format(record) + f" locals: {record.__dict__['value']}"

    root = logging.getLogger("mlauth-test-redaction")
    stream = written(root, WithLocals())
    redaction.guard_logging()
    root.warning("text", extra={"value": CANARY})
    assert stream.getvalue() == "text locals: ***\n"


def test_a_formatted_traceback_can_be_masked_too() -> None:
    try:
        raise ValueError(f"could not use {CANARY}")
    except ValueError:
        assert "canary" not in redaction.mask(traceback.format_exc())
