"""The house itself: shipped configs, the Makefile, the wheel, and what the documents promise."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from selenite.cli.main import app
from selenite.config import Config, load
from selenite.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE)
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def config_class(path: Path) -> type[Config]:
    """The class that a shipped TOML is for: those not named here are of pre-training."""
    from selenite.agent.rephrasing.config import RephrasingConfig
    from selenite.agent.synthesis.config import SynthesisConfig
    from selenite.agent.synthesis.dataset import DatasetConfig
    from selenite.rl.config import RlConfig
    from selenite.train.pretrain import PretrainConfig
    from selenite.train.sft_config import SftConfig

    assert path.parent == ROOT / "configs", f"{path}: say here which config class it is for"
    others = {"agentic.toml": SynthesisConfig, "rephrase.toml": RephrasingConfig}
    endings = {"-data": DatasetConfig, "-sft": SftConfig, "-rl": RlConfig}
    by_ending = next((cls for end, cls in endings.items() if path.stem.endswith(end)), None)
    return others.get(path.name, by_ending or PretrainConfig)


# --- configs


def test_configs_are_shipped() -> None:
    assert (ROOT / "configs" / "nano.toml").exists()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").rglob("*.toml")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_shipped_config_loads(path: Path) -> None:
    cls = config_class(path)
    assert isinstance(load(cls, path), cls)


# --- packaging


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_constraints_pin_every_requirement_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    extras = project()["optional-dependencies"].values()
    for text in [*project()["dependencies"], *(line for extra in extras for line in extra)]:
        requirement = Requirement(text)
        if requirement.name == "selenite":
            continue
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(version), f"{text} but constraints.txt has {version}"
        assert "+" not in version, f"{requirement.name}=={version} exists on one index only"


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    """A wheel of the tracked files, in an environment that borrows only our dependencies."""
    source = tmp_path / "source"
    for path in tracked_files():
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source],
        check=True,
    )
    (wheel,) = tmp_path.glob("selenite-*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "-q", "--no-deps", wheel], check=True)
    # Our own site-packages, behind the new environment's, bring the dependencies. Its .pth files
    # are not read there, so the editable installation of the checkout stays out of sight.
    run = {
        "cwd": tmp_path,
        "env": {"PYTHONPATH": str(Path(pytest.__file__).parents[1]), "PATH": "/usr/bin:/bin"},
        "capture_output": True,
        "text": True,
        "check": True,
    }
    where = subprocess.run([python, "-c", "import selenite; print(selenite.__file__)"], **run)
    assert where.stdout.startswith(str(tmp_path / "env"))
    helped = subprocess.run([tmp_path / "env" / "bin" / "selenite", "--help"], **run)
    for command in (ROOT / "selenite" / "cli").glob("[a-z]*.py"):
        if command.stem != "main":
            assert command.stem.replace("_", "-") in helped.stdout
    folders = ["chat/templates", "serve/http/page", "rl/page/files"]
    code = (
        "import importlib.resources as r, json, selenite.model.config as c; "
        "print(json.dumps([c.preset('nano').hidden_size, "
        "[sorted(p.name for p in r.files('selenite').joinpath(folder).iterdir()) "
        f"for folder in {folders}]]))"
    )
    size, data = json.loads(subprocess.run([python, "-c", code], **run).stdout)
    assert size > 0
    assert data == [sorted(p.name for p in (ROOT / "selenite" / it).iterdir()) for it in folders]


# --- the Makefile and the documents


def test_make_help_lists_every_target() -> None:
    helped = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.findall(r"^  make ([a-z-]+) ", helped.stdout, re.MULTILINE) == TARGETS
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony.split() == TARGETS


def test_ci_calls_targets_that_exist() -> None:
    script = ROOT / ".ci" / "run"
    subprocess.run(["bash", "-n", script], check=True)
    called = re.findall(r"^make (.*)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert called
    assert set(called) <= set(TARGETS)


def test_verify_asks_for_its_row() -> None:
    asked = subprocess.run(
        ["make", "-o", ".venv/.dev", "verify"], cwd=ROOT, capture_output=True, text=True
    )
    assert asked.returncode == 2
    assert "ROW=id" in asked.stderr


def commands(document: Path) -> list[list[str]]:
    """The command lines in a document's ``sh`` blocks, as words."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", document.read_text(encoding="utf-8"), re.S)
    joined = [block.replace("\\\n", "") for block in blocks]
    lines = [line.strip() for block in joined for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check_selenite(arguments: list[str]) -> None:
    """The command takes these arguments, and a config these overrides; nothing is run."""
    group = typer.main.get_command(app)
    with group.make_context("selenite", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, list(arguments))
        if hasattr(command, "resolve_command"):  # a group of its own, like bench
            name, command, rest = command.resolve_command(context, rest)
        assert command is not None
        with command.make_context(name, rest, parent=context):
            pass
    if name in ("pretrain", "rephrase") or arguments[:2] == ["synth", "make"]:
        path, *overrides = arguments[2 if arguments[0] == "synth" else 1 :]
        load(config_class(ROOT / path), ROOT / path, overrides)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_of_the_documents_exist(document: Path) -> None:
    for words in commands(document):
        program = words[0].removeprefix(".venv/bin/")
        if program == "make":
            goals = [word for word in words[1:] if "=" not in word]
            assert set(goals) <= set(TARGETS), words
        elif program == "selenite" and not words[1].startswith("-"):
            check_selenite(words[1:])
        elif program == "python" and words[1] == "-m" and "." in words[2]:
            module = ROOT.joinpath(*words[2].split("."))
            assert module.with_suffix(".py").exists() or module.is_dir(), words
        for word in words[1:]:
            if re.match(r"(configs|tests|experiments|benchmarks|docs)/", word):
                assert (ROOT / word.partition("::")[0]).exists(), words


def test_the_commands_of_the_quickstart_exist() -> None:
    lines = re.findall(r"^\t\$\(BIN\)/selenite (.*)$", MAKEFILE, re.MULTILINE)
    assert len(lines) >= 2
    for line in lines:
        check_selenite(shlex.split(line))


def test_check_selenite_sees_what_is_wrong() -> None:
    check_selenite(["pretrain", "configs/nano.toml"])
    check_selenite(["bench", "serve", "--num-prompts", "2"])
    for wrong in (
        ["pretrian"],
        ["pretrain"],
        ["pretrain", "configs/nano.toml", "--no-such"],
        ["bench", "sreve"],
        ["bench", "serve", "--no-such"],
    ):
        with pytest.raises(Exception, match=r"No such|Missing"):
            check_selenite(wrong)
    with pytest.raises(ConfigError, match="unknown key"):
        check_selenite(["pretrain", "configs/nano.toml", "optim.lrr=1"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_links_of_the_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_layout_in_the_readme_is_the_layout() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"```text\n(.*?)```", readme, re.S)
    shown = set(re.findall(r"^ *([a-z]+)/", tree, re.MULTILINE))
    folders = {
        part
        for path in tracked_files()
        if path.suffix == ".py" or path.parent.name == "configs"
        for part in path.relative_to(ROOT).parts[:2]
        if "." not in part
        and not part.startswith("__")
        and path.relative_to(ROOT).parts[0] != "tests"
    }
    assert folders <= shown, f"README's layout lacks {sorted(folders - shown)}"
    above = (ROOT, ROOT / "selenite", ROOT / "benchmarks")
    assert all(any((folder / name).is_dir() for folder in above) for name in shown)


def test_no_file_names_a_machines_place() -> None:
    """Paths of somebody's machine work nowhere else."""
    place = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/\w+|file:///\w")
    for path in tracked_files():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".json", ".jinja", ""}:
            found = place.search(path.read_text(encoding="utf-8"))
            assert not found or path == Path(__file__), f"{path}: {found and found[0]}"
