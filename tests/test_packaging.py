"""The contents of an installation. No build is run: it would use the network."""

import tomllib
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parent.parent
DISTRIBUTION = "graph-profile-proxy"


@pytest.fixture(scope="module")
def setup_cfg() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_pyproject_names_the_build_system_only() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert pyproject.keys() == {"build-system"}
    assert pyproject["build-system"]["build-backend"] == "setuptools.build_meta"


def test_setup_py_has_two_lines() -> None:
    lines = (ROOT / "setup.py").read_text().splitlines()

    assert lines == ["from setuptools import setup", "setup()"]


def test_command_is_installed_as_profile_proxy() -> None:
    installed = metadata.distribution(DISTRIBUTION).entry_points

    (command,) = installed.select(group="console_scripts")

    assert (command.name, command.value) == ("profile-proxy", "proxy.cli.commands:main")


def test_extras_include_those_that_make_installs() -> None:
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra")

    assert extras is not None
    assert {"embedded", "dev"} <= set(extras)


def test_distribution_contains_only_the_package(setup_cfg: ConfigParser) -> None:
    """Neither tests nor benchmarks: another distribution may have such a package."""
    found = setup_cfg["options.packages.find"]["include"].split()

    assert setup_cfg["metadata"]["name"] == DISTRIBUTION
    assert setup_cfg["options"]["packages"] == "find:"
    assert found == ["proxy", "proxy.*"]


def test_every_folder_with_code_is_a_package() -> None:
    """``find:`` silently skips a folder without ``__init__.py``."""
    folders = {module.parent for module in (ROOT / "proxy").rglob("*.py")}

    assert [str(f) for f in folders if not (f / "__init__.py").exists()] == []


def test_every_file_of_the_package_is_installed(setup_cfg: ConfigParser) -> None:
    """A missing template would be noticed only after deployment."""
    listed = {
        (Path(*package.split(".")), pattern)
        for package, patterns in setup_cfg["options.package_data"].items()
        for pattern in patterns.split()
    }
    installed = {
        file.relative_to(ROOT)
        for folder, pattern in listed
        for file in (ROOT / folder).glob(pattern)
    }
    files = {
        file.relative_to(ROOT)
        for file in (ROOT / "proxy").rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }

    assert {PurePath("proxy/py.typed"), PurePath("proxy/web/openapi.yaml")} <= files
    assert files - installed == set()
