"""Measures a variant in a process of its own: wall clock, CPU time, memory and requests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.table import Table

# Prefect is imported, and has logged a line, before the clock starts, as in every flow run. Its
# objects are taken out of garbage collection: one full collection of them takes 50 ms, and would
# happen by chance in one variant or another.
PRELUDE = """
import asyncio, gc, os, resource, sys, time
import prefect.deployments.steps.core
from prefect.deployments.steps import run_shell_script
from prefect.logging import get_logger
get_logger("bench").info("Running 1 deployment pull step(s)")
gc.collect()
gc.freeze()
def used():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)
cpu, wall = used(), time.perf_counter()
"""
EPILOGUE = """
wall, cpu = time.perf_counter() - wall, used() - cpu
print("COST", wall, cpu)
"""
MEMORY_EPILOGUE = EPILOGUE.replace(
    'print("COST", wall, cpu)',
    "print('COST', wall, cpu, max(resource.getrusage(who).ru_maxrss for who in "
    "(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))",
)


@dataclass
class Figures:
    """The figures of all runs of one variant."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def row(self) -> list[str]:
        return [
            *(
                f"{median(each) * 1000:,.0f} ({min(each) * 1000:,.0f} to {max(each) * 1000:,.0f})"
                for each in (self.wall, self.cpu)
            ),
            f"{median(self.memory):,.0f}",
            " / ".join(sorted(set(self.asked))),
        ]


def measured(
    command: list[str],
    env: Mapping[str, str],
    asked: Callable[[], Counter[str]],
    figures: Figures,
) -> None:
    """Run a command. If it prints a line `COST wall cpu`, that counts, not the whole process.

    `asked` counts the requests to a service so far, by kind.
    """
    before, start = Counter(asked()), time.perf_counter()
    process = subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = process.communicate()
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{output}{errors}")
    cost = next((line.split()[1:] for line in output.splitlines() if line[:5] == "COST "), None)
    if cost is None:
        raise SystemExit(f"no figures from {' '.join(command)[:200]}:\n{output}{errors}")
    figures.wall.append(float(cost[0]) if cost[0] != "-" else wall)
    figures.cpu.append(float(cost[1]))
    figures.memory.append(float(cost[2]) / 1024 if len(cost) > 2 else 0)
    after = asked()
    after.subtract(before)
    figures.asked.append(", ".join(f"{n} {what}" for what, n in sorted(after.items()) if n))


# Runs a command, and prints the CPU time and memory of it and its children.
ACCOUNT = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print("COST", "-", usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def table(title: str, rows: Mapping[str, Figures], *, memory: bool = True) -> Table:
    """Return a table with one row for each variant."""
    result = Table(title=title, title_justify="left")
    result.add_column("variant", no_wrap=True)
    names = ["wall ms", "client CPU ms", "peak MiB", "asked of the service"]
    shown = [index for index in range(4) if memory or index != 2]
    for index in shown:
        result.add_column(names[index], justify="right", no_wrap=True)
    for name, figures in rows.items():
        row = figures.row()
        result.add_row(name, *(row[index] for index in shown))
    return result


def path() -> str:
    """Return the search path, with the programs of this environment first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
