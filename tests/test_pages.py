"""Every file, link and name on the pages exists."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deployments/*/README.md")])
FOLDERS = "mlauth|prefect_mlauth|zenml_mlauth|tests|docs|deployments|demo|benchmarks|requirements"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        file = page.parent / link if link else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), f"{link}#{anchor}"
    for path in re.findall(rf"`((?:{FOLDERS})/[^`\s]*)`", text):
        if not re.search("[A-Z<*]", path):  # the reader fills in this name
            assert (ROOT / path).exists(), path


def test_the_architecture_page_has_the_layers_that_make_check_enforces() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| layer |")[2].partition("\n\n")[0]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]["contracts"]
    (layers,) = (each["layers"] for each in contracts if "containers" in each)
    enforced = [name.strip() for line in layers[:-1] for name in re.split("[|:]", line)]
    named = "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))
    assert re.findall(r"`mlauth\.(\w+)`", named) == enforced
