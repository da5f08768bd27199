"""What a wheel will hold and what an installation will need, read from pyproject.toml and constraints.txt."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import calmctl
from calmctl.diagnosis import NEWEST_TESTED, _packages, is_at_least, lower_bounds

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def packages_on_disk() -> set[str]:
    folders = {
        path.parent for package in ("calmctl", "data_builders", "evals") for path in (ROOT / package).rglob("*.py")
    }
    return {".".join(folder.relative_to(ROOT).parts) for folder in folders} | {"calmctl.conf"}


def test_no_source_is_left_out_by_the_linter() -> None:
    """Folders of results and packages may have one name; patterns without a slash leave out both."""
    patterns = [*PROJECT["tool"]["ruff"].get("exclude", ()), *PROJECT["tool"]["ruff"].get("extend-exclude", ())]
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line[:1].isalnum()]
    names = {part for package in packages_on_disk() for part in package.split(".")}
    assert not names & {*patterns, *ignored}


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "plain name==version lines only"
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_on_disk_is_listed_and_no_other() -> None:
    listed = SETUPTOOLS["packages"]
    assert set(listed) == packages_on_disk()
    assert listed == sorted(set(listed))
    assert not [name for name in listed if "test" in name]


def test_every_package_has_an_init_file() -> None:
    for name in packages_on_disk():
        folder = ROOT / ("conf" if name == "calmctl.conf" else name.replace(".", "/"))
        assert (folder / "__init__.py").exists(), f"{folder} is no package without an __init__.py"


def test_presets_ship_inside_the_package() -> None:
    assert SETUPTOOLS["package-dir"]["calmctl.conf"] == "conf"
    assert SETUPTOOLS["package-data"]["calmctl.conf"] == ["**/*.yaml"]
    assert not list((ROOT / "conf").rglob("*.yml")), "presets end in .yaml; .yml would be left out of the wheel"


def test_pins_cover_every_dependency_and_satisfy_its_bound() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    requirements = PROJECT["project"]["dependencies"] + [each for extra in extras.values() for each in extra]
    pinned = pins()
    for requirement in requirements:
        name, _, bound = requirement.partition(">=")
        assert bound, f"{requirement}: give a lower bound"
        assert is_at_least(pinned[normal(name)], bound), requirement
    assert pinned["torch"] == "2.13.0"


def test_the_doctor_knows_the_bounds_of_the_project() -> None:
    bounds = {normal(name): bound for name, bound in lower_bounds().items()}
    declared = dict(requirement.split(">=") for requirement in PROJECT["project"]["dependencies"])
    assert bounds == {normal(name): bound for name, bound in declared.items()}


def test_every_dependency_was_tested_up_to_a_version() -> None:
    pinned, bounds = pins(), lower_bounds()
    assert NEWEST_TESTED.keys() == bounds.keys()
    for name, newest in NEWEST_TESTED.items():
        assert is_at_least(newest, bounds[name]) and is_at_least(newest, pinned[normal(name)]), name


def test_the_doctor_says_what_is_newer_than_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calmctl.environment.installed_version", {**NEWEST_TESTED, "torch": "99.1"}.get)
    statuses = {check.name: (check.status, check.detail) for check in _packages()}
    assert statuses.pop("torch") == (
        "warning",
        f"99.1 is newer than all that was tested (2.9 to {NEWEST_TESTED['torch']})",
    )
    assert {status for status, _ in statuses.values()} == {"ok"}


def test_versions_compare_by_their_numbers() -> None:
    assert is_at_least("2.13.0+cpu", "2.9")
    assert is_at_least("5.0.0", "5")
    assert is_at_least("5.0rc1", "5.0")
    assert not is_at_least("2.8.1", "2.9")


def test_the_version_has_one_source() -> None:
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "calmctl.version.VERSION"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", calmctl.__version__)


def test_the_image_gets_every_package() -> None:
    copied = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    names = {name for line in copied for name in line}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    needed = {package.partition(".")[0] for package in SETUPTOOLS["packages"]} | {"conf", "pyproject.toml"}
    assert needed <= names <= sent and all((ROOT / name).exists() for name in names)


def test_every_page_is_on_the_site() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    sections = [next(iter(group.values())) for group in site["nav"]]
    entries = [each for section in sections for each in (section if isinstance(section, list) else [section])]
    listed = [next(iter(each.values())) if isinstance(each, dict) else each for each in entries]
    assert sorted(listed) == sorted(["index.md", *(path.name for path in (ROOT / "docs").glob("*.md"))])


def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings_handlers.python", reason="the extra `docs` is not installed: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert "composition_parameters" in (tmp_path / "api" / "index.html").read_text()
