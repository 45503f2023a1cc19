"""The capabilities of all supported versions: test_matrix.py tests each, and a page shows them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "versions.md"
PINS = ROOT / "requirements" / "matrix"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


@dataclass(frozen=True)
class Environment:
    """Packages that are installed together.

    Attributes:
        name: of the pins in requirements/matrix.
        title: for the page.
        extras: those of mlauth that work there.
        server: whether ZenML's server is there too.
        pythons: the versions of Python on which it installs.
        each: whether it is tested with each of them; else with one.
    """

    name: str
    title: str
    extras: frozenset[str]
    server: bool = False
    pythons: tuple[str, ...] = PYTHONS
    each: bool = False

    @property
    def pins(self) -> Path:
        return PINS / f"{self.name}.txt"

    def version(self, package: str) -> str:
        """Return the version of a package that is pinned, or an empty text."""
        found = re.search(rf"^{package}(\[[a-z,]+\])?==(\S+)", self.pins.read_text(), re.MULTILINE)
        return found[2] if found else ""


ALL = frozenset({"azurekv", "prefect", "zenml"})  # the extras that a capability may need
ENVIRONMENTS = (
    Environment("oldest", "the oldest of both", ALL, server=True, pythons=PYTHONS[:3]),
    Environment("pair", "the newest pair", ALL, server=True, each=True),
    Environment("newest", "the newest of each, ZenML without its server", ALL),
    Environment("prefect", "Prefect alone", ALL - {"zenml"}),
    Environment("zenml", "ZenML alone", ALL - {"prefect"}, server=True),
    Environment("core", "mlauth alone", frozenset()),
)


@dataclass(frozen=True)
class Capability:
    """Something that users do.

    Attributes:
        title: for the page.
        needs: the extras that it needs.
    """

    title: str
    needs: frozenset[str] = frozenset()

    def missing(self, environment: Environment) -> list[str]:
        return sorted(self.needs - environment.extras)


CAPABILITIES = {
    "files": Capability("secrets from files and variables"),
    "vault": Capability("secrets from Azure Key Vault", frozenset({"azurekv"})),
    "check": Capability("`mlauth check` against a ZenML server"),
    "rotate": Capability("`mlauth rotate zenml`"),
    "activate": Capability("`mlauth.activate`"),
    "worker": Capability("pull steps, on a process worker", frozenset({"prefect"})),
    "execute": Capability("pull steps, in a container's command", frozenset({"prefect"})),
    "ways": Capability("pull steps, however a flow is started", frozenset({"prefect"})),
    "blocks": Capability("blocks in flow code", frozenset({"prefect"})),
    "pipeline": Capability("a ZenML pipeline as its service account", frozenset({"zenml"})),
    "component": Capability("the ZenML stack component", frozenset({"zenml"})),
    "both": Capability(
        "a Prefect deployment that runs a ZenML pipeline on a stack with the component",
        frozenset({"prefect", "zenml"}),
    ),
}


def page() -> str:
    """Return the page of docs/, made from the declarations above and the pins."""
    head = [""] + [environment.title for environment in ENVIRONMENTS]
    rows = [
        [package, *(each.version(name) or "none" for each in ENVIRONMENTS)]
        for package, name in (("Prefect", "prefect"), ("ZenML", "zenml"))
    ]
    spans = (f"{each.pythons[0]} to {each.pythons[-1]}" for each in ENVIRONMENTS)
    rows.append(["Python", *spans])
    for capability in CAPABILITIES.values():
        cells = []
        for environment in ENVIRONMENTS:
            missing = capability.missing(environment)
            cells.append(f"needs `mlauth[{','.join(missing)}]`" if missing else "yes")
        rows.append([capability.title, *cells])
    table = [head, ["---"] * len(head), *rows]
    lines = [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in table]
    return INTRODUCTION + "\n".join(lines) + "\n"


INTRODUCTION = """\
# Versions

mlauth works with Prefect 3.3.7 and newer, ZenML 0.80.2 and newer (client and server), and Python
3.10 to 3.13. Each column of the table is an environment of its own, into which mlauth's wheel was
installed. Each cell was tried there. *Yes* means that it works against real servers of Prefect and
ZenML; a column without a ZenML server was tried with the server of the newest pair. *Needs* means
that mlauth ended with one line that names the missing extra. The newest pair was tried with each
Python, and the other columns with one.

The newest Prefect and the newest ZenML *server* cannot be installed together. Flows do not need the
server; they need ZenML's client.

`make test-matrix` tries all of it again, with the pins in requirements/matrix. `make docs` makes
this page from tests/versions/matrix.py.

"""
