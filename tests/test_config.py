"""Config loading: files, bases, overrides, errors that name the key, and the round trip.

The shipped TOML files are loaded by ``tests/test_house.py``.
"""

from __future__ import annotations

import math
import string
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from selenite.config import Config, dump, load
from selenite.errors import ConfigError, StorageError


class Folder(Config):
    kind: Literal["folder"] = "folder"
    path: str
    weight: float = 1.0


class Packages(Config):
    kind: Literal["packages"]
    limit: int | None = 5


Source = Annotated[Folder | Packages, Field(discriminator="kind")]


class Optim(Config):
    lr: float = Field(default=1e-3, gt=0)
    momentum: float = 0.95
    clip: float | None = None
    mode: Literal["none", "full"] = "full"


class Run(Config):
    name: str = "run"
    steps: int = Field(default=10, ge=1)
    optim: Optim = Optim()
    teacher: Optim | None = None
    sources: tuple[Source, ...] = ()
    betas: tuple[float, ...] = (0.9, 0.95)
    labels: dict[str, float | None] = Field(default_factory=dict)
    warmup: int | None = 3

    @model_validator(mode="after")
    def _check(self) -> Run:
        if self.warmup is not None and self.warmup > self.steps:
            raise ValueError(f"warmup={self.warmup} exceeds steps={self.steps}")
        return self


@pytest.fixture
def write(tmp_path: Path):
    def write_file(text: str, name: str = "run.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def problem(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(Run, path, list(overrides))
    return str(caught.value)


def test_file_then_overrides_in_order(write) -> None:
    path = write('name = "a"\n[optim]\nlr = 0.5\n[[sources]]\npath = "x"\nkind = "folder"\n')
    config = load(
        Run,
        path,
        ["optim.lr=0.1", "optim.lr=3e-3", "name=b c", "betas=[0.5, 1]", "sources.0.path=y/z.toml"],
    )
    assert config == Run(
        name="b c", optim=Optim(lr=3e-3), betas=(0.5, 1.0), sources=(Folder(path="y/z.toml"),)
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=2024-01-01", {"name": "2024-01-01"}),  # a date is a word to us
        ("name='42'", {"name": "42"}),
        ("name=a=b", {"name": "a=b"}),
        ("optim.clip=inf", {"optim": Optim(clip=math.inf)}),
        ("warmup=none", {"warmup": None}),
        ("optim.mode=none", {"optim": Optim(mode="none")}),  # a field without null keeps the word
        ("teacher.lr=2.0", {"teacher": Optim(lr=2.0)}),
        ("labels={a = 1.5, b = 'none'}", {"labels": {"a": 1.5, "b": None}}),
    ],
)
def test_override_values(write, override: str, expected: dict[str, object]) -> None:
    assert load(Run, write(""), [override]) == Run(**expected)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lrr=1", "optim.lrr: unknown key; did you mean optim.lr"),
        ("lr=1", "lr: unknown key; did you mean optim.lr or teacher.lr?"),
        ("optm.lr=1", "did you mean optim"),
        ("teacher.momentun=1", "teacher.momentun: unknown key; did you mean teacher.momentum"),
        ("sources.0.pth=1", "sources.0.pth: unknown key; did you mean sources.0.path"),
        ("sources.1.limits=1", "sources.1.limits: unknown key; did you mean sources.1.limit"),
        ("zzzzzz=1", "zzzzzz: unknown key; known: name, steps, optim"),
        ("optim.lr=-1", "optim.lr = -1: should be greater than 0"),
        ("optim.lr=fast", "optim.lr = 'fast': should be a valid number"),
        ("optim.mode=half", "optim.mode = 'half': should be 'none' or 'full'"),
        ("sources.0.weight=x", "sources.0.weight = 'x': should be a valid number"),
        ("sources.0.kind=web", "sources.0: "),
        ("steps=1", "warmup=3 exceeds steps=1"),
        ("optim=3", "optim = 3: "),
        ("name.first=x", "name is 'a', which has no keys"),
        ("sources.7.path=x", "'7' is not a place in it"),
        ("optim.lr", "must look like optim.lr=3e-3"),
        ("=3", "must look like optim.lr=3e-3"),
        ("optim..lr=3", "must look like optim.lr=3e-3"),
    ],
)
def test_errors_give_path_value_and_rule(write, override: str, words: str) -> None:
    path = write(
        'name = "a"\n[[sources]]\nkind = "folder"\npath = "x"\n[[sources]]\nkind = "packages"\n'
    )
    load(Run, path)  # sound without the override
    assert words in problem(path, override)


def test_all_wrong_keys_are_named_at_once(write) -> None:
    message = problem(write("stepz = 3\nsteps = 0\n[[sources]]\nkind = 'folder'\n"))
    assert "run.toml" in message
    assert "stepz: unknown key" in message
    assert "steps = 0: should be greater than or equal to 1" in message
    assert "sources.0.path: required, and not given" in message


def test_bases_merge_left_to_right(write) -> None:
    write("steps = 20\n[optim]\nlr = 0.5\nmomentum = 0.1\n", "a.toml")
    write("[optim]\nlr = 0.25\n", "b.toml")
    path = write('base = ["a.toml", "b.toml"]\nbetas = [0.1]\n')
    assert load(Run, path) == Run(steps=20, optim=Optim(lr=0.25, momentum=0.1), betas=(0.1,))


def test_a_circle_of_bases_is_an_error(write) -> None:
    write('base = "run.toml"\n', "other.toml")
    assert "as a base" in problem(write('base = "other.toml"\n'))


def test_files_that_cannot_be_read(write, tmp_path: Path) -> None:
    path = write("steps = 3\nsteps = \n")
    assert "run.toml: not valid TOML" in problem(path)
    assert "line 2" in problem(path)
    assert "there are: run.toml" in problem(tmp_path / "rum.toml")
    assert "no such config file" in problem(tmp_path / "nowhere" / "run.toml")
    assert "cannot be read" in problem(tmp_path)
    path.write_bytes(b"name = '\xff'\n")
    assert "not UTF-8 text: byte 8" in problem(path)
    assert "must be a file name" in problem(write("base = 3"))


words = st.text(string.printable + "é漢\x7f", max_size=8)
numbers = st.floats(allow_nan=False)
optims = st.builds(
    Optim,
    lr=st.floats(min_value=1e-12),
    clip=st.none() | numbers,
    mode=st.sampled_from(["none", "full"]),
)
runs = st.builds(
    Run,
    name=words,
    steps=st.integers(min_value=10, max_value=2**40),
    optim=optims,
    teacher=st.none() | optims,
    sources=st.lists(
        st.builds(Folder, path=words, weight=numbers)
        | st.builds(Packages, kind=st.just("packages"), limit=st.none() | st.integers(0, 9)),
        max_size=3,
    ).map(tuple),
    betas=st.lists(numbers, max_size=3).map(tuple),
    labels=st.dictionaries(words, st.none() | numbers, max_size=3),
    warmup=st.none() | st.just(2),
)


@given(config=runs)
@settings(max_examples=60, deadline=None)
def test_dump_loads_back_equal(tmp_path_factory: pytest.TempPathFactory, config: Run) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped" / "config.toml"
    dump(config, path)
    assert load(Run, path) == config
    assert [p.name for p in path.parent.iterdir()] == ["config.toml"]  # no part file stays


def test_dump_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        dump(Run(), tmp_path / "file" / "config.toml")


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Run().steps = 3
