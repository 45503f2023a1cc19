from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextvars import ContextVar

import pytest

from mlauth.deadline import Deadline
from mlauth.errors import DeadlineExceeded, InvalidCredentials, MLAuthError


@pytest.mark.parametrize(
    "seconds", [0, -1, float("inf"), float("nan"), 1e10, 10**400, 86_401, "30", None, True]
)
def test_a_time_limit_must_be_a_number_of_seconds_up_to_a_day(seconds: object) -> None:
    with pytest.raises(InvalidCredentials, match="timeout"):
        Deadline(seconds)  # type: ignore[arg-type]
    assert Deadline(86_400).run(lambda: 3, "it") == 3


def test_work_that_is_in_time_gives_its_result() -> None:
    deadline = Deadline(10)
    assert deadline.run(lambda: 3, "it") == 3
    assert 0 < deadline.remaining() <= 10
    assert deadline.inner().remaining() < deadline.remaining()


def test_work_that_hangs_is_given_up_and_the_rest_counts() -> None:
    hang = threading.Event()
    start = time.monotonic()
    results = Deadline(0.3).run_all([lambda: 1, hang.wait], "the store")
    assert time.monotonic() - start < 5
    assert results[0] == 1
    assert isinstance(results[1], DeadlineExceeded)
    assert str(results[1]) == "the store: no answer within 0.3 s"
    hang.set()


def test_an_error_of_ours_comes_without_frames_whose_locals_hold_values() -> None:
    def fail() -> None:
        try:
            b"canary\xff".decode()
        except UnicodeDecodeError as error:
            raise MLAuthError("what failed") from error

    (error,) = Deadline(10).run_all([fail], "it")
    assert isinstance(error, MLAuthError)
    assert error.__traceback__ is error.__context__ is error.__cause__ is None


def test_another_error_is_one_line_of_ours_without_frames_and_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(secret: str) -> None:
        raise ValueError(secret)

    caplog.set_level("DEBUG")
    line = r"^it: ValueError at test_deadline.py line \d+, which is a defect"
    with pytest.raises(MLAuthError, match=line) as caught:
        Deadline(10).run(lambda: fail("canary"), "it")
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "fail" not in [entry.name for entry in caught.traceback]
    assert "raise ValueError(secret)" in caplog.text
    assert "canary" not in str(caught.value)


def test_work_sees_the_context_variables_of_its_caller() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("mine")
    assert Deadline(10).run(variable.get, "it") == "mine"


def test_a_process_with_a_stuck_thread_ends_at_once() -> None:
    code = (
        "import threading; from mlauth.deadline import Deadline\n"
        "try: Deadline(0.2).run(threading.Event().wait, 'it')\n"
        "except Exception as error: print(error)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "it: no answer within 0.2 s\n"
    assert time.monotonic() - start < 30
