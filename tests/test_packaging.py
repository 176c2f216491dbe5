"""What is packed, how large it is, and what no file of the project may name."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.extras import install, packages

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ASSETS = ROOT / "pipeline" / "assets"
MEGABYTE = 1_000_000


def normalised(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]).lower()


def requirements() -> list[str]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    return [*PROJECT["project"]["dependencies"], *(requirement for extra in extras for requirement in extra)]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_every_package_of_the_tree_is_found() -> None:
    """Setuptools finds folders with an ``__init__.py`` alone."""
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for top in ("lanit", "pipeline"):
        assert any(fnmatch(top, pattern) for pattern in patterns)
        folders = {path.parent for path in (ROOT / top).rglob("*.py")}
        assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
    for module in PROJECT["tool"]["setuptools"]["py-modules"]:
        assert (ROOT / f"{module}.py").is_file()
    for package in ("lanit", "pipeline"):
        assert (ROOT / package / "py.typed").is_file()


def test_files_of_the_user_called_pipeline_and_cli_break_neither_the_api_nor_the_command(tmp_path: Path) -> None:
    """Both before anything of ours on the path. Where theirs is loaded already, one line says so."""
    for name in ("pipeline", "cli"):
        (tmp_path / f"{name}.py").write_text("def main():\n    print('theirs')\n", encoding="utf-8")
    module, _, function = PROJECT["project"]["scripts"]["lanit"].partition(":")
    code = f"""
import sys, pipeline, lanit
try:
    lanit.load("sample")
except Exception as error:
    print(type(error).__name__, error)
del sys.modules["pipeline"]
print(lanit.load("sample").image_size)
import {module}
sys.argv = ["lanit", "label", "--prompts", "x", "--store", "nowhere"]
{module}.{function}()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    refused, size = done.stdout.splitlines()
    assert refused.startswith("LanitError another module called pipeline is loaded, which is not lanit's: ")
    assert refused.endswith(f"Rename {tmp_path / 'pipeline.py'}.")
    assert int(size) > 0
    assert done.stderr == "error: there is no store at nowhere. Run: lanit embed DIR --store nowhere\n"
    assert done.returncode == 1


def test_every_asset_is_package_data() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["pipeline"]
    packed = {path for pattern in patterns for path in (ROOT / "pipeline").glob(pattern)}
    packed |= {path for folder in packed if folder.is_dir() for path in folder.rglob("*")}
    assert {path for path in ASSETS.rglob("*") if path.is_file()} <= packed


@pytest.mark.parametrize(("folder", "limit"), [("sample-clip", 10), ("sample-generator", 5)])
def test_shipped_weights_are_there_and_small(folder: str, limit: int) -> None:
    weights = list((ASSETS / folder).glob("*.safetensors"))
    assert weights
    assert sum(path.stat().st_size for path in weights) <= limit * MEGABYTE


def test_every_requirement_is_pinned_once_without_addresses() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"://|@|--hash|^-", text, re.MULTILINE)
    missing = {normalised(requirement) for requirement in requirements()} - {normalised(name) for name in pins()}
    assert not missing
    assert len({normalised(name) for name in pins()}) == len(pins())


def test_each_dependency_is_justified_on_its_line() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in requirements():
        (line,) = (line for line in text.splitlines() if line.strip().startswith(f'"{requirement}"'))
        assert re.search(r'",\s+# \w', line), line


def test_each_dependency_is_used() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for top in ("lanit", "pipeline") for path in (ROOT / top).rglob("*.py")
    ) + (ROOT / "cli.py").read_text(encoding="utf-8")
    module_of = {"pillow": "PIL", "open-clip-torch": "open_clip", "faiss-gpu": "faiss", "faiss-cpu": "faiss"}
    for requirement in PROJECT["project"]["dependencies"]:
        name = normalised(requirement)
        if name != "torchvision":  # open_clip's; named for its release only
            module = module_of.get(name, name.replace("-", "_"))
            assert re.search(rf'^\s*(import|from) {module}\b|import_module\("{module}"\)', sources, re.MULTILINE), name


def test_every_pin_lies_in_its_range() -> None:
    versions = {normalised(name): version for name, version in pins().items()}
    outside = [
        each for each in map(Requirement, requirements()) if versions[normalised(each.name)] not in each.specifier
    ]
    assert outside == []


EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]


def test_what_to_install_for_an_extra_are_its_packages_by_name() -> None:
    """lanit is on no public index, so that no line may name it as if it were."""
    for extra, wanted in EXTRAS.items():
        assert [str(Requirement(each)) for each in packages(extra)] == [str(Requirement(each)) for each in wanted]
        assert install(extra).startswith('pip install "')
    assert install("no-such-extra") == 'pip install ".[no-such-extra]"'
    sources = [ROOT / "cli.py", *(ROOT / "pipeline").rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert "lanit[" not in text or path.name == "LOG.md", path
        assert set(re.findall(r"\binstall\('?\"?([a-z0-9]+)['\"]?\)", text)) <= {*EXTRAS, "extra", "name"}, path


def test_what_is_installed_agrees_with_itself() -> None:
    """No cap of a package is hidden by an override: what is installed here is what any installer may choose. But for
    embedding-reader, which a test reads with and which caps pandas."""
    versions = {normalised(each.metadata["Name"]): each.version for each in importlib.metadata.distributions()}
    wrong = []
    for each in importlib.metadata.distributions():
        for requirement in map(Requirement, each.requires or []):
            version = versions.get(normalised(requirement.name))
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and version and not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{each.metadata['Name']} wants {requirement}, not {version}")
    assert [line for line in wrong if not line.startswith("embedding-reader")] == []


@pytest.mark.network
@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_can_be_installed_with_the_pins(extra: str) -> None:
    words = ["pip", "compile", "--quiet", "--no-config", "--constraints", "constraints.txt", "--extra", extra]
    subprocess.run([sys.executable, "-m", "uv", *words, "pyproject.toml"], cwd=ROOT, check=True, capture_output=True)
