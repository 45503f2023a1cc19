"""The contract suite for systems: for those of mlauth, and for those of other packages.

It needs pytest, which mlauth does not install. To run it for a system, write a class with the
system's fields and the answers of its service. The suite runs that service on loopback:

    from mlauth.testing.systems import ServiceContract
    from mlauth.testing.web import Answer

    class TestAcme(ServiceContract):
        system = "acme"
        secrets = {"token": "acme_canary-7d1e"}
        account = "flows"

        def settings(self):
            return {"url": self.url}

        def answer(self, call):
            if call.headers.get("authorization") != f"Bearer {self.secrets['token']}":
                return Answer(401)
            return Answer(200, {"name": "flows"})

The suite finds the system by its name, so its distribution must be installed (editable works). In
a `conftest.py`, `pytest.register_assert_rewrite("mlauth.testing.systems")` makes failures say more.
"""

from __future__ import annotations

import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import pytest
from pydantic import SecretBytes, SecretStr, ValidationError

import mlauth
from mlauth import SecretReference, Stage, Status, systems
from mlauth.checking import check_all
from mlauth.deadline import Deadline
from mlauth.errors import CheckUnknown, InvalidCredentials
from mlauth.report import SystemReport
from mlauth.stores import memory
from mlauth.systems import Credentials, Exports
from mlauth.testing.leaks import leaks
from mlauth.testing.web import NO_ANSWER, Answer, Call, serve

# Values that somebody stored in a wrong way.
SPOILT = ("\ufeff{}", " {}", "{}\n", '"{}"', "<the-{}>", "env://{}", "{}\0")
ODD: tuple[Any, ...] = (None, True, -1, 10**400, "", "a\x1b[31m\nb", [], {}, [[]], {"a": {}})


def _lines(report: SystemReport) -> list[str]:
    said = [report.summary(), *report.facts.values(), *report.warnings]
    return [*said, *(result.detail for result in report.results if result.detail)]


class SystemContract(ABC):
    """The tests for every system.

    Attributes:
        system: the name of the system.
        secrets: for each secret field, a value of the right shape that occurs nowhere else.
        spoilt: patterns that spoil a value; such a value must be refused before a service sees it.
    """

    system: str
    secrets: Mapping[str, str]
    spoilt: ClassVar[tuple[str, ...]] = SPOILT

    def settings(self) -> dict[str, Any]:
        """Return the fields that are no secrets, as a person writes them."""
        return {}

    def fields(self, secrets: Mapping[str, str]) -> dict[str, Any]:
        """Return all fields.

        Args:
            secrets: the content of each secret field.
        """
        return {**self.settings(), **secrets}

    def owned(self) -> tuple[str, ...]:
        """Return the variables that the system may set and empty, as patterns."""
        return self.model().owned

    def make(self) -> Credentials:
        """Return credentials whose references give the values of `secrets`."""
        for name, value in self.secrets.items():
            memory.put(f"contract/{name}", value)
        return self.model().of("test", self.fields(self.references()))

    def model(self) -> type[Credentials]:
        """Return the model of the credentials."""
        return systems.load(self.system)

    def references(self) -> dict[str, str]:
        """Return the references of `make`, by field."""
        return {name: f"memory://contract/{name}" for name in self.secrets}

    def shows_no_secret(self, text: str) -> None:
        """Fail if a text holds a secret in any spelling."""
        shown = [name for name, value in self.secrets.items() if leaks(text, value)]
        assert not shown, f"the values of {', '.join(shown)} are in the output"

    def check(self, credentials: Credentials, *, timeout: float = 20) -> SystemReport:
        """Check credentials, and look for secrets and wrong lines in the report."""
        report = mlauth.check(credentials, timeout=timeout)
        self.shows_no_secret(f"{json.dumps(report.to_dict())} {report.summary()} {report!r}")
        (found,) = report.systems
        assert all(line.isprintable() for line in _lines(found))
        assert "is a defect of" not in found.summary()  # with this, mlauth reports an exception
        return found

    @pytest.fixture(autouse=True)
    def _around(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> Iterator[None]:
        """Remove the system's variables, make an empty home, and look for secrets in all output."""
        for name in list(os.environ):
            if name.upper().endswith("_PROXY") or self._is_owned(name):
                monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        caplog.set_level("DEBUG")
        yield
        said = [caplog.handler.format(record) for record in caplog.get_records("call")]
        self.shows_no_secret("\n".join([*said, *capfd.readouterr()]))

    def _is_owned(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.owned())

    def test_it_is_found_by_its_name(self) -> None:
        assert self.system.isidentifier()
        assert self.system == self.system.lower()
        assert self.model().system == self.system
        assert self.model().title

    def test_every_field_says_what_it_is(self) -> None:
        """Steps, blocks and tables are made from the fields."""
        for name, field in self.model().model_fields.items():
            assert field.title, name
            assert field.alias is None, f"{name} is given by its name, as people see it"
            assert (field.description or "").endswith("."), name
        assert self.model().__doc__ != Credentials.__doc__

    def test_no_field_is_called_as_something_else_of_a_step_or_block(self) -> None:
        """Every login takes the first names, Prefect reads the next in a step, a block has more."""
        taken = {"verify", "timeout", "id", "requires", "check", "login", "load", "save", "delete"}
        assert not taken & set(self.model().model_fields)

    def test_every_secret_is_a_reference(self) -> None:
        found = self.make().references()
        assert found == {
            name: SecretReference.parse(text) for name, text in self.references().items()
        }
        for name, field in self.model().model_fields.items():
            assert field.annotation not in (SecretStr, SecretBytes), f"{name} is no reference"

    def test_a_literal_is_refused_in_one_line_that_names_the_field(self) -> None:
        for name, value in self.secrets.items():
            fields = self.fields({**self.references(), name: value})
            with pytest.raises(InvalidCredentials) as caught:
                self.model().of("the caller", fields)
            message = str(caught.value)
            assert message.startswith("the caller: ")
            assert message.isprintable()
            assert name in message
            assert "rotate it" in message
            self.shows_no_secret(message)
            with pytest.raises(ValidationError) as raised:
                self.model()(**fields)
            self.shows_no_secret(f"{raised.value} {raised.value!r}")

    def test_an_unknown_field_is_refused(self) -> None:
        with pytest.raises(InvalidCredentials, match="nope: there is no such setting"):
            self.model().of("the caller", {"nope": 1})

    def test_credentials_are_written_as_references_and_read_back(self) -> None:
        credentials = self.make()
        text = credentials.model_dump_json()
        assert self.model().model_validate_json(text) == credentials
        self.shows_no_secret(f"{text} {credentials!r} {credentials}")

    def test_a_value_of_the_wrong_shape_is_refused_before_anyone_is_asked(self) -> None:
        credentials = self.make()
        for name, value in self.secrets.items():
            for spoil in self.spoilt:
                memory.put(f"contract/{name}", spoil.format(value))
                report = self.check(credentials)
                assert report.status is Status.FAILED, repr(spoil)
                assert report.results[-1].stage is Stage.WELL_FORMED, repr(spoil)
                assert f"memory://contract/{name}" in report.summary()
            memory.put(f"contract/{name}", value)

    @pytest.mark.parametrize("verify", [True, False])
    def test_it_sets_what_it_owns_and_shows_no_value(self, verify: bool) -> None:
        exports = self._exports(verify=verify)
        if exports is None:
            return
        for name in (*exports.secrets, *exports.settings, *exports.emptied):
            assert self._is_owned(name), f"{name} is not among the owned variables of the system"
        assert exports.secrets
        self.shows_no_secret(f"{exports!r} {exports.settings}")

    def test_a_name_that_is_nearly_right_is_named_with_the_right_one(self) -> None:
        for wrong, right in self.model().near_misses.items():
            assert self._is_owned(right)
            for environment in ({wrong: value} for value in self.secrets.values()):
                warnings = self.make().configured(environment)
                assert any(wrong in line and right in line for line in warnings)
                with pytest.raises(InvalidCredentials) as caught:
                    self.model().from_environment(environment)
                assert wrong in str(caught.value)
                assert right in str(caught.value)
                self.shows_no_secret(f"{warnings} {caught.value}")

    def test_what_is_set_is_what_its_client_would_find(self) -> None:
        assert self.model().from_environment({}) is None
        with mlauth.activate(self.make(), timeout=20) as activation:
            found = self.model().from_environment(os.environ)
            if not self.model().found_in:
                assert found is None
                return
            assert found
            assert found.hosts() == self.make().hosts()
            for reference in found.references().values():
                assert reference.scheme == "env"
                assert str(reference).removeprefix("env://") in activation.variables
            report = self.check(found)
        assert report.status is Status.PASSED
        assert report.account == activation.account

    @pytest.mark.parametrize("verify", [True, False])
    def test_what_is_set_is_undone_exactly(
        self, verify: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exports = self._exports(verify=verify)
        if exports is None:
            with (
                pytest.raises(InvalidCredentials) as caught,
                mlauth.activate(self.make(), verify=False),
            ):
                pass
            assert str(caught.value).isprintable()
            return
        for name in (*exports.settings, *exports.emptied):
            monkeypatch.setenv(name, "left-over")
        before = dict(os.environ)
        with mlauth.activate(self.make(), verify=verify, timeout=20) as activation:
            self.shows_no_secret(repr(activation))
            for name, value in exports.secrets.items():
                assert os.environ[name] == value.get_secret_value()
            for name, text in exports.settings.items():
                assert os.environ[name] == text
            assert all(os.environ[name] == "" for name in exports.emptied)
        assert dict(os.environ) == before
        assert not list(tmp_path.glob("mlauth-*"))

    def _exports(self, *, verify: bool) -> Exports | None:
        """Return the exports, or None if they depend on the service and it was not asked."""
        _, (checked,) = check_all(self.make(), Deadline(20), verify=verify)
        self.shows_no_secret(f"{checked!r} {checked.proof!r}")
        if not verify and isinstance(checked.error, InvalidCredentials):
            return None
        assert checked.exports, checked.error
        return checked.exports


class ServiceContract(SystemContract):
    """The tests for every system with a service, which runs on loopback here.

    Attributes:
        account: the service's name for the account, if it gives one.
        url: the URL of the service.
        calls: the requests that the service got.
    """

    account: str | None = None
    url: str
    calls: list[Call]

    @abstractmethod
    def answer(self, call: Call) -> Answer:
        """Answer as the service does; it takes only the credentials of `secrets`."""

    def refusal(self, call: Call) -> Answer:
        """Answer as the service does to a credential that it does not take."""
        return Answer(401, {"error": "unauthorized"})

    def carries(self, call: Call) -> bool:
        """Say whether a request holds one of `secrets`."""
        form = [text for pair in parse_qsl(call.body.decode(errors="replace")) for text in pair]
        said = "\n".join([*call.headers.values(), call.body.decode(errors="replace"), *form])
        return bool(leaks(said, *self.secrets.values()))

    @pytest.fixture(autouse=True)
    def _service(self, _around: None) -> Iterator[None]:
        self.calls, self._instead, self._over = [], None, threading.Event()
        with serve(self._serve) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield
            self._over.set()

    def _serve(self, call: Call) -> Answer:
        self.calls.append(call)
        found = self._instead(call) if self._instead else None
        return found or self.answer(call)

    def _hang(self, _call: Call) -> Answer:
        self._over.wait(60)
        return NO_ANSWER

    _instead: Callable[[Call], Answer | None] | None = None
    _over: threading.Event

    def test_what_the_service_takes_is_proven(self) -> None:
        report = self.check(self.make())
        assert report.status is Status.PASSED, report.summary()
        assert report.proven
        assert report.account == self.account
        stages = [result.stage for result in report.results]
        assert stages == [stage for stage in Stage if stage in stages]
        assert not report.warnings

    def test_a_credential_is_in_no_url(self) -> None:
        self.check(self.make())
        assert self.calls
        for call in self.calls:
            self.shows_no_secret(f"{call.path} {call.query}")

    def test_nobody_is_asked_but_by_a_check(self) -> None:
        credentials = self.make()
        assert credentials.hosts() == ("127.0.0.1",)
        credentials.configured(os.environ)
        self._exports(verify=False)
        assert not self.calls

    def test_a_credential_that_is_refused_fails_at_that_stage(self) -> None:
        self._instead = lambda call: self.refusal(call) if self.carries(call) else None
        report = self.check(self.make())
        assert report.status is Status.FAILED
        assert report.results[-1].stage is Stage.AUTHENTICATED
        before = dict(os.environ)
        with pytest.raises(mlauth.MLAuthError) as caught, mlauth.activate(self.make(), timeout=20):
            pass
        assert str(caught.value).isprintable()
        self.shows_no_secret(str(caught.value))
        assert dict(os.environ) == before

    @pytest.mark.parametrize("when", ["always", "with the credential"])
    @pytest.mark.parametrize("what", ["500", "503", "429", "hangs", "breaks off"])
    def test_a_service_that_does_not_answer_leaves_it_open(self, what: str, when: str) -> None:
        def wrong(call: Call) -> Answer:
            if what == "hangs":
                return self._hang(call)
            return Answer(int(what)) if what.isdigit() else NO_ANSWER

        self._instead = lambda call: wrong(call) if when == "always" or self.carries(call) else None
        report = self.check(self.make(), timeout=1)
        assert report.status is Status.UNKNOWN
        assert report.results[-1].status is Status.UNKNOWN

    def test_what_is_left_open_stops_no_run_that_could_go_on(self) -> None:
        self._instead = lambda _: Answer(503)
        before = dict(os.environ)
        try:
            with mlauth.activate(self.make(), timeout=1) as activation:
                assert any("not proven" in warning for warning in activation.warnings)
        except CheckUnknown:  # the exports of this system depend on the service
            pass
        assert dict(os.environ) == before

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    @pytest.mark.parametrize("when", ["always", "with the credential"])
    def test_a_redirect_gets_no_credential(self, status: int, when: str) -> None:
        others: list[Call] = []

        def another(call: Call) -> Answer:
            others.append(call)
            return self.answer(call)

        with ExitStack() as stack:
            port = stack.enter_context(serve(another))

            def redirect(call: Call) -> Answer | None:
                if when == "always" or self.carries(call):
                    return Answer(status, None, {"Location": f"http://127.0.0.1:{port}{call.path}"})
                return None

            self._instead = redirect
            report = self.check(self.make())
        assert report.status is Status.FAILED
        assert not others

    @pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"\xff", b""])
    def test_a_page_of_something_else_proves_nothing(self, body: bytes) -> None:
        """A proxy or a load balancer may answer every request with the same page."""
        self._instead = lambda _: Answer(200, body)
        report = self.check(self.make())
        assert report.status is Status.FAILED, report.summary()

    def test_no_answer_makes_more_than_a_line(self) -> None:
        """Any part of an answer may be anything; `check` looks at the lines of the report."""
        plain = self._answers()
        for path, body in plain.items():
            for odd in _varied(body):
                self._instead = partial(_only_at, path, odd)
                self.check(self.make())

    def _answers(self) -> dict[str, Any]:
        """Return the service's answers in a check that passes, by path."""
        found: dict[str, Any] = {}

        def listen(call: Call) -> Answer:
            answer = self.answer(call)
            found[call.path] = answer.body
            return answer

        self._instead = listen
        self.check(self.make())
        return found


def _only_at(path: str, body: Any, call: Call) -> Answer | None:
    return Answer(200, body) if call.path == path else None


def _varied(body: Any) -> Iterator[Any]:
    """Yield copies of a body in which one part, or all of it, is replaced by something odd."""
    yield from ODD
    if not isinstance(body, (dict, list)):
        return
    for key in body if isinstance(body, dict) else range(len(body)):
        for odd in _varied(body[key]):
            copy: Any = body.copy()
            copy[key] = odd
            yield copy
