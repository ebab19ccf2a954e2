"""The wheel and an editable install, in fresh environments, hold one import package: meshscope."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

SHIPPED = (
    "meshscope",
    "tui",
    "queries",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
)


def run(*command: str | Path, cwd: Path) -> str:
    finished = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is shipped, links kept, so that no build writes into the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SHIPPED:
        source = repository / name
        if source.is_dir():
            shutil.copytree(
                source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".*_cache")
            )
        else:
            shutil.copy2(source, copy / name)
    return copy


@pytest.fixture(scope="module")
def distributions(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel built from that sdist."""
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, cwd=checkout)
    return target


class Environment:
    """A fresh environment that sees the dependencies of the running one, but not its meshscope."""

    def __init__(self, root: Path) -> None:
        venv.create(root, with_pip=False)
        self.root = root
        self.python = root / "bin" / "python"
        self.site = Path(sysconfig.get_path("purelib", "venv", {"base": str(root)}))
        # Sorts before the pointer of an editable install, which needs it. The directory named in it is not
        # searched for further .pth files, so the running environment's editable meshscope stays unseen.
        (self.site / "_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def install(self, *what: str | Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", "--no-index", "--no-deps")
        run(*pip, "--no-build-isolation", *what, cwd=self.root)

    def evaluate(self, code: str) -> str:
        return run(self.python, "-I", "-c", code, cwd=self.root).strip()

    def top_level(self) -> set[str]:
        return {entry.name for entry in self.site.iterdir()} - {"_dependencies.pth", "__pycache__"}


@pytest.fixture(scope="module")
def from_wheel(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("from_wheel"))
    environment.install(*distributions.glob("*.whl"))
    return environment


@pytest.fixture(scope="module")
def editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("editable"))
    environment.install("--editable", checkout)
    return environment


@pytest.fixture(params=["from_wheel", "editable"])
def environment(request: pytest.FixtureRequest) -> Environment:
    installed = request.getfixturevalue(request.param)
    assert isinstance(installed, Environment)
    return installed


def test_the_wheel_holds_meshscope_and_nothing_else(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"meshscope"}
    assert {"meshscope/py.typed", "meshscope/tui/__init__.py", "meshscope/queries/README.md"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_sdist_holds_files_where_the_checkout_has_links(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members)
    assert "meshscope/tui/__init__.py" in {member.name.split("/", 1)[1] for member in members}


def test_every_module_of_the_checkout_is_in_the_wheel(checkout: Path, distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if name.endswith(".py")}
    package = {str(path.relative_to(checkout)) for path in (checkout / "meshscope").rglob("*.py")}
    tui = {f"meshscope/{path.relative_to(checkout)}" for path in (checkout / "tui").rglob("*.py")}
    assert shipped == package | tui


def test_site_packages_get_nothing_but_meshscope(from_wheel: Environment) -> None:
    names = from_wheel.top_level()
    assert "meshscope" in names
    assert {name.split("-")[0] for name in names} == {"meshscope"}


def test_an_editable_install_adds_only_its_pointer(editable: Environment) -> None:
    assert {name.split("-")[0].split(".")[0] for name in editable.top_level()} == {
        "meshscope",
        "_editable_impl_meshscope",
    }


def test_the_package_and_its_parts_import(environment: Environment, checkout: Path) -> None:
    files = environment.evaluate(
        "import meshscope, meshscope.tui; print(meshscope.__file__, meshscope.tui.__file__)"
    )
    expected = environment.site if (environment.site / "meshscope").exists() else checkout
    for file in files.split():
        assert Path(file).is_relative_to(expected)


@pytest.mark.parametrize("name", ["tui", "queries", "scripts", "tests"])
def test_no_other_directory_of_the_checkout_is_importable(environment: Environment, name: str) -> None:
    found = environment.evaluate(f"import importlib.util; print(importlib.util.find_spec({name!r}))")
    assert found == "None"


def test_the_data_files_are_found_beside_the_package(environment: Environment) -> None:
    code = (
        "from importlib.resources import files\n"
        "print(files('meshscope').joinpath('queries/README.md').is_file())"
    )
    assert environment.evaluate(code) == "True"


def test_the_metadata_name_one_package_and_one_command(environment: Environment) -> None:
    code = (
        "from importlib.metadata import distribution\n"
        "d = distribution('meshscope')\n"
        "print(d.metadata['License-Expression'], [e.name + '=' + e.value for e in d.entry_points])"
    )
    assert environment.evaluate(code) == "Apache-2.0 ['meshscope=meshscope.cli.main:main']"


def test_the_command_runs(environment: Environment) -> None:
    import_version = environment.evaluate("import meshscope; print(meshscope.__version__)")
    assert import_version in run(environment.root / "bin" / "meshscope", "--version", cwd=environment.root)


def test_the_module_runs_as_the_command(environment: Environment) -> None:
    by_name = run(environment.root / "bin" / "meshscope", "--version", cwd=environment.root)
    assert run(environment.python, "-I", "-m", "meshscope", "--version", cwd=environment.root) == by_name
