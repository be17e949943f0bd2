"""The distributions: what is in them, that they agree, and that what is inside works."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import snncc

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"snncc": "snncc", "passes": "snncc/passes", "runtime": "snncc/runtime", "models": "snncc/models"}
DATA = {
    "snncc": ("py.typed",),
    "models": ("*.json", "*.md", "networks/*.onnx", "data/*.npz", "data/*.md"),
}

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="the tests stand alone")


def source_files(root: Path) -> dict[str, Path]:
    """By path in the wheel, the files of the packages and their data below a root; symlinks aside."""
    found = {}
    for folder, target in FOLDERS.items():
        patterns = ("**/*.py", *DATA.get(folder, ()))
        for path in (p for pattern in patterns for p in (root / folder).glob(pattern)):
            inside = path.relative_to(root / folder)
            linked = any((root / folder / parent).is_symlink() for parent in inside.parents if parent != Path())
            if not linked:
                found[f"{target}/{inside.as_posix()}"] = path
    return found


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONDONTWRITEBYTECODE": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, as building leaves files behind."""
    target = tmp_path_factory.mktemp("source")
    for name in (*FOLDERS, "tests", "benchmarks", "docs", ".ci"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    return target


@pytest.fixture(scope="module")
def distributions(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built of it."""
    for module in ("build", "setuptools"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} isn't installed")
    target = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", str(target), str(source), cwd=target)
    return target


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> zipfile.ZipFile:
    (file,) = distributions.glob("*.whl")
    return zipfile.ZipFile(file)


def test_wheel_holds_every_file_once_and_nothing_else(wheel: zipfile.ZipFile, source: Path) -> None:
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert sorted(names) == sorted(source_files(source))


def test_wheel_holds_the_files_as_they_are(wheel: zipfile.ZipFile, source: Path) -> None:
    changed = [name for name, path in source_files(source).items() if wheel.read(name) != path.read_bytes()]
    assert not changed


def test_only_snncc_is_installed_at_the_top(wheel: zipfile.ZipFile) -> None:
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert folders == {"snncc", f"snncc-{snncc.__version__}.dist-info"}


def test_metadata(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(wheel.read(f"snncc-{snncc.__version__}.dist-info/METADATA").decode())
    assert metadata["Version"] == snncc.__version__
    assert metadata["License-Expression"] == "MIT"
    assert f"snncc-{snncc.__version__}.dist-info/licenses/LICENSE" in wheel.namelist()


def test_source_distribution_holds_files_instead_of_links(distributions: Path, source: Path) -> None:
    (file,) = distributions.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        members = {member.name.split("/", 1)[-1]: member for member in archive.getmembers()}
    assert all(member.isfile() or member.isdir() for member in members.values())
    wanted = {path.relative_to(source).as_posix() for path in source_files(source).values()}
    assert wanted <= set(members)
    assert {"README.md", "LICENSE", "tests/test_packaging.py", "benchmarks/zoo.py", ".ci/run"} <= set(members)


def test_what_the_wheel_holds_works(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    version = python("-m", "snncc", "--version", cwd=tmp_path, path=tmp_path / "site")
    assert version == f"snncc {snncc.__version__}\n"
    code = "from snncc import models; print(models.path('fashion_vgg')); print(models.test_set()[0].shape)"
    file, shape = python("-c", code, cwd=tmp_path, path=tmp_path / "site").splitlines()
    assert Path(file).is_relative_to(tmp_path / "site")
    assert shape == "(10000, 1, 28, 28)"


def test_no_module_has_two_names_in_a_checkout() -> None:
    """The symlinks in snncc/ and the folders beside it are the same files."""
    code = """
import collections, importlib, os, pkgutil, sys
import snncc
for module in pkgutil.walk_packages(snncc.__path__, "snncc."):
    if not module.name.startswith("snncc.models.recipes") and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
names = collections.defaultdict(list)
folders = tuple(os.path.join(os.getcwd(), name, "") for name in sys.argv[1:])
for name, module in list(sys.modules.items()):
    file = os.path.realpath(getattr(module, "__file__", None) or os.devnull)
    if file.startswith(folders):
        names[file].append(name)
print(len(names), [n for n in names.values() if len(n) > 1 or not n[0].startswith("snncc")])
"""
    if not (ROOT / "snncc" / "passes").is_symlink():
        pytest.skip("no checkout: without the symlinks")
    count, wrong = python("-c", code, *FOLDERS, cwd=ROOT).split(maxsplit=1)
    assert int(count) > 50
    assert wrong.strip() == "[]"


def test_readme_shows_the_script_that_is_measured() -> None:
    readme, script = (ROOT / name for name in ("README.md", "benchmarks/stock_runtime.py"))
    assert f"```python\n{script.read_text(encoding='utf-8')}```" in readme.read_text(encoding="utf-8")
