"""The content of a release, and the names of its extras."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import import_module, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlauth import stores, systems
from mlauth.extras import extras_of

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent
PACKAGES = ("mlauth", "prefect_mlauth", "zenml_mlauth")
REQUIRED = [Requirement(each) for each in metadata.requires("mlauth") or ()]
EXTRAS = metadata.metadata("mlauth").get_all("Provides-Extra") or []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_has_the_packages_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()}
    (about,) = (name for name in names if name.endswith(".dist-info"))
    assert names - {about} == set(PACKAGES)


def test_the_sdist_has_what_the_make_targets_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(kept.stdout.splitlines()) - names == {".ci/run"}


def imported(source: str) -> set[str]:
    """Return the packages that a module imports, at once or when it needs them."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"sdk", "load"}:
            found |= {each.value for each in node.args[:1] if isinstance(each, ast.Constant)}
    return {str(name).partition(".")[0] for name in found}


def libraries(module: str) -> set[str]:
    """Return what a system or store imports that neither Python nor mlauth's core brings."""
    file = Path(import_module(module).__file__ or "")
    files = file.parent.rglob("*.py") if file.name == "__init__.py" else [file]
    packages = {name for path in files for name in imported(path.read_text(encoding="utf-8"))}
    core = {canonicalize_name(each.name) for each in REQUIRED if not each.marker}
    of = metadata.packages_distributions()  # in Python 3.10 without wheels that do not list them
    return {
        name
        for name in packages - {*sys.stdlib_module_names, *PACKAGES}
        if not core & {canonicalize_name(each) for each in (name, *of.get(name, ()))}
    }


def test_what_imports_a_library_has_an_extra_of_its_name() -> None:
    modules = {name: (systems.place(name) or "").partition(":")[0] for name in systems.names()}
    modules |= {f"{name} store": f"mlauth.stores.{name}" for name in stores.schemes()}
    using = {name.split()[0] for name, module in modules.items() if libraries(module)}
    assert "azurekv" in using
    assert extras_of(using) == {canonicalize_name(name) for name in using}


def test_each_extra_is_a_system_or_a_store_and_all_has_what_they_need() -> None:
    """A system and a store of the same name share one extra."""
    assert len({canonicalize_name(extra) for extra in EXTRAS}) == len(EXTRAS)
    words = {*systems.names(), *stores.schemes(), "prefect"}
    assert extras_of(words) == {canonicalize_name(extra) for extra in EXTRAS} - {"all"}
    needed = {str(each).partition(";")[0] for each in REQUIRED if each.marker}
    assert needed == {
        str(each).partition(";")[0]
        for each in REQUIRED
        if each.marker and each.marker.evaluate({"extra": "all"})
    }


def test_each_advice_to_install_an_extra_names_an_existing_extra() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("deployments/*/*")]
    sources = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    named = set()
    for path in [*pages, *sources]:
        if path.suffix in {".md", ".py", ".yaml"} or path.name == "Dockerfile":
            text = path.read_text(encoding="utf-8")
            named |= set(re.findall(r'(?:EXTRA = |\bsdk\("[\w.]+", )"([\w-]+)"', text))
            for inside in re.findall(r"(?:mlauth|checkout|\.whl)\[([\w, -]+)\]", text):
                named |= set(re.split(", ?", inside))
    published = {canonicalize_name(extra) for extra in named}
    assert {"azurekv", "prefect", "zenml"} <= published <= {*map(canonicalize_name, EXTRAS)}


def test_extras_are_compared_as_they_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "acme_mlauth-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-mlauth\nVersion: 1.0\n"
        "Provides-Extra: python-index\nProvides-Extra: vault\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert extras_of(["python_index", "Vault", "env"], "acme-mlauth") == {"python-index", "vault"}
