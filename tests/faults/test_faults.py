"""Every way to fail, at every place: one line, in time, with nothing leaked.

docs/failures.md is made of what is seen here, and compared with it; `make docs` writes it anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.faults import local, network
from tests.faults.forks import Job, Outcome
from tests.support.accounts import Account

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "failures.md"
LATE = "no answer within 30 s, from the store or from what says who asks: "
# What a line advises; one that has none of these leaves its reader alone.
ADVICE = re.compile(
    r"\?|\b(try|check|use|give|name|renew|set|put|store|remove|leave|correct|rotate|make|log in|"
    r"install|it takes|the name is|it has|must be|must start|add|see|hand it)\b"
)


@dataclass(frozen=True)
class Cell:
    """One thing that goes wrong at one place, met in one way.

    Attributes:
        stage, name: the heading and the row of its table.
        job: what was run.
        fault: what the network did.
        asked: how often the service was asked what the fault is about.
        outcome: what came of it.
    """

    stage: str
    name: str
    job: Job
    fault: network.Trouble | None
    asked: int
    outcome: Outcome

    @property
    def line(self) -> str:
        """What was said, in the words of the document."""
        said = self.outcome.line.removeprefix("not proven: ")
        said = said.removesuffix("; going on all the same")
        said = re.sub(r"^((zenml|env|mlauth), [a-z-]+|mlauth): ", "", said)
        folder = re.escape(self.job.folder)
        for found, shown in (
            (rf"(file://)?{folder}/key", r"\1/run/secrets/zenml/api-key"),
            (rf"file://{folder}", "file:///run/secrets"),
            (folder, "/opt/flows"),
            (r"localhost:\d+", "zenml.example.com"),
            (r"zenml\.invalid", "zenml.example.com"),
            (rf"within {network.SOON:g} s", "within 30 s"),
            # A time limit in another, a moment apart: which is noticed depends on the machine.
            (r"[^\s:]+ gave no answer in time: ", LATE),
            (r"(https://[a-z.]+)\S* gave no answer within 30 s: ", r"\1: no answer within 30 s: "),
        ):
            said = re.sub(found, shown, said)
        return said

    def problems(self) -> Iterator[str]:
        """Say what its user could not live with."""
        kind, line = self.outcome.kind, self.outcome.line
        if kind in {"broke", "left something behind", "passed", "StageFailed", "StageUnknown"}:
            yield f"it ended as {kind}: {line}"
        if not line or "\n" in line or len(line) > 700:
            yield f"not one line: {line!r}"
        if not ADVICE.search(line):
            yield f"it does not say what to do: {line}"
        if any(canary in line + self.outcome.output for canary in network.CANARIES):
            yield "it shows a value"
        if self.outcome.seconds > self.job.seconds + 2:
            yield f"it took {self.outcome.seconds:.1f} s of {self.job.seconds:g} s"
        if self.fault is not None and "own client" not in self.stage:  # whose attempts are ZenML's
            yield from self._of_the_network(self.fault)

    def _of_the_network(self, fault: network.Trouble) -> Iterator[str]:
        unknown = self.outcome.kind in {"unknown", "goes on", "StoreUnavailable"}
        # Behind a proxy nobody can tell a wrong name or port from a proxy that has trouble.
        hidden = fault.reply is None and fault.connecting and self.stage in network.PROXIED
        if unknown != (fault.open or hidden):
            yield f"it is {'open' if fault.open else 'certain'}, and ended as {self.outcome.kind}"
        if fault.name == "HTTP 401" and self.asked != 1:
            yield f"a refusal was asked for {self.asked} times"
        if self.asked > 9:
            yield f"it was asked {self.asked} times"
        if fault.waits and fault.name.startswith("HTTP") and self.asked < 2:
            yield "it was not tried again"

    def __str__(self) -> str:
        return f"{self.stage}, {self.name}, {self.job.use}"


def run(jobs: list[Job], folder: Path) -> list[Outcome]:
    """Run every job; see `tests.faults.forks`."""
    answers = folder / "outcomes.json"
    place = {"HOME": str(folder), "TMPDIR": str(folder), "ZENML_CONFIG_PATH": f"{folder}/zenml"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.forks", str(answers)],
        input=json.dumps([asdict(job) for job in jobs]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **place, "ZENML_ANALYTICS_OPT_IN": "false"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [Outcome(**each) for each in json.loads(answers.read_text())]


def cells(folder: Path, account: Account) -> list[Cell]:
    """Let everything go wrong."""
    certificates = network.Certificates(folder)
    real = account.server.url, network.log_in(account.server.url, account.key)
    jobs: list[Job] = []
    found = []
    with ExitStack() as stack:
        for stage in network.STAGES:
            for fault in filter(stage.has, network.FAULTS):
                for use in stage.uses:
                    place = network.place(
                        stage, fault, use, folder / f"cell-{len(jobs)}", certificates, real
                    )
                    job, service = stack.enter_context(place)
                    jobs.append(job)
                    found.append((stage.name, fault.name, fault, stage.asked, service.requests))
        for wrong in local.CELLS:
            for use in wrong.uses:
                jobs.append(wrong.job(use, folder / f"cell-{len(jobs)}"))
                found.append((wrong.stage, wrong.name, None, bool, []))
        outcomes = run(jobs, folder)
    return [
        Cell(stage, name, job, fault, sum(map(asked, requests)), outcome)
        for (stage, name, fault, asked, requests), job, outcome in zip(
            found, jobs, outcomes, strict=True
        )
    ]


HEAD = """\
# What can fail, and the line that says so

Search this page for some words of your line. The tests make it: they let each of these happen, on
real sockets ({faults} faults, met in {ways} ways). Names, addresses and time limits are examples.

`mlauth check` ends as *failed* (exit code 1: somebody must change something, and the line says
what), *unknown* (3: the credential may be fine; what may pass was tried again until the time limit)
or *wrong use* (2: the profile or the command). An activation (a pull step, a block,
`mlauth.activate`) raises the class that is named, or goes on with the line as a warning.

Where the line is *no answer within 30 s*, it may name what gave none: *acme-prod.vault.azure.net
gave no answer in time*, *https://zenml.example.com/api/v1/login gave no answer within 30 s*.
"""


def document(found: list[Cell]) -> str:
    """Write the tables."""
    faults = len({(cell.stage, cell.name) for cell in found})
    text = HEAD.format(faults=faults, ways=len(found))
    for stage in dict.fromkeys(cell.stage for cell in found):
        rows: dict[tuple[str, ...], tuple[list[str], str]] = {}
        columns: dict[str, None] = {}
        for name in dict.fromkeys(cell.name for cell in found if cell.stage == stage):
            met = [cell for cell in found if (cell.stage, cell.name) == (stage, name)]
            ends = {}
            for cell in met:
                code = f" ({cell.outcome.code})" if cell.outcome.code is not None else ""
                ends[HEADINGS[cell.job.use]] = cell.outcome.kind + code
            columns |= dict.fromkeys(ends)
            alike = re.sub(r"(HTTP |redirects \(|answers )\d{3}", r"\1", met[0].line)
            names, _ = rows.setdefault((*ends.values(), alike), ([], met[0].line))
            names.append(name)
        text += f"\n## {stage}\n\n| what happened | {' | '.join(columns)} | the line |\n"
        text += "|---" * (len(columns) + 2) + "|\n"
        for (*ends_of, _), (names, line) in rows.items():
            cut = [*ends_of, *[""] * (len(columns) - len(ends_of))]
            text += f"| {'; '.join(names)} | {' | '.join(cut)} | {line} |\n"
    return text


HEADINGS = {
    "check": "`mlauth check`",
    "environment": "`mlauth check`",
    "activate": "activation",
    "component": "component",
}


@pytest.mark.load
@pytest.mark.timeout(500)
def test_every_fault_is_one_line_in_time_with_nothing_leaked_and_the_document_shows_it(
    tmp_path: Path, account: Account
) -> None:
    found = cells(tmp_path, account)
    problems = [f"{cell}: {problem}" for cell in found for problem in cell.problems()]
    assert not problems, "\n".join(problems)
    text = document(found)
    if os.environ.get("MLAUTH_WRITE_DOCS"):
        DOCUMENT.write_text(text, encoding="utf-8")
    shown = DOCUMENT.read_text(encoding="utf-8")
    assert text.splitlines() == shown.splitlines(), "run `make docs`, and read what it changed"
