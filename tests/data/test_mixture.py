"""The choice among corpora: a function of seed and index, in proportion to the weights."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from selenite.config import Config, dump, load, validate
from selenite.data.mixture import CorpusOrMixture, Mixture, MixtureConfig, prepare_mixture
from selenite.data.prepare import DataConfig
from selenite.errors import ConfigError


def test_choices_depend_on_seed_and_index_alone():
    forward = [Mixture([1, 2, 3], seed=4).choose(index) for index in range(50)]
    mixture = Mixture([1, 2, 3], seed=4)
    assert [mixture.choose(index) for index in reversed(range(50))] == forward[::-1]
    assert forward != [Mixture([1, 2, 3], seed=5).choose(index) for index in range(50)]


def test_shares_converge_to_the_weights():
    weights = np.array([0.5, 2.5, 1.0])
    mixture = Mixture(weights.tolist(), seed=0)
    for count in (400, 6400):
        chosen = np.bincount([mixture.choose(index) for index in range(count)], minlength=3)
        shares = weights / weights.sum()
        # Five standard deviations of a binomial share.
        bound = 5 * np.sqrt(shares * (1 - shares) / count)
        assert (np.abs(chosen / count - shares) < bound).all()


@pytest.mark.parametrize("weights", [[], [0.0], [1, -1], [float("nan")], [float("inf")]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ConfigError, match="positive"):
        Mixture(weights, seed=0)


def test_the_parts_share_one_tokenizer(tmp_path):
    for name, word in (("a", "apple"), ("b", "banana")):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.txt").write_text(f"{word} number {number}, " * 20)
    parts = [
        {
            "weight": weight,
            "data": {
                "sources": [{"kind": "folder", "path": str(tmp_path / name)}],
                "tokenizer": {"vocab_size": 300},
                "dedup": None,
            },
        }
        for name, weight in (("a", 3), ("b", 1))
    ]
    config = MixtureConfig.model_validate({"parts": parts})
    first, second = prepare_mixture(config, tmp_path / "cache")
    assert config.weights == (3, 1)
    assert first.tokenizer_fingerprint == second.tokenizer_fingerprint
    assert first.train.sha256 != second.train.sha256
    assert "banana" in second.tokenizer.decode(second.train.tokens.tolist())


class Run(Config):
    data: CorpusOrMixture = DataConfig()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ({"max_byte": 5},
         ["data.max_byte: unknown key; did you mean data.max_bytes or data.parts?"]),
        ({"parts": [{"wieght": 1.0, "data": {}}]},
         ["data.parts.0.weight: required, and not given",
          "data.parts.0.wieght: unknown key; did you mean data.parts.0.weight or data.parts?"]),
        ({"parts": [{"weight": 1.0, "data": {"max_bytes": 0}}]},
         ["data.parts.0.data.max_bytes = 0: should be greater than or equal to 1"]),
        ("text", ["data = 'text': should be a valid dictionary or instance of DataConfig"]),
    ],
)  # fmt: skip
def test_one_slip_is_one_message_of_the_kind_that_was_meant(data, lines):
    with pytest.raises(ConfigError) as caught:
        validate(Run, {"data": data}, "run.toml")
    assert str(caught.value).splitlines() == ["run.toml:", *(f"  {line}" for line in lines)]


def test_parts_make_a_mixture_and_no_parts_a_corpus(tmp_path):
    part = {"weight": 1.0, "data": {"max_bytes": 5}}
    for data, kind in (({"parts": [part]}, MixtureConfig), ({"max_bytes": 5}, DataConfig)):
        run = validate(Run, {"data": data}, "run.toml")
        assert isinstance(run.data, kind)
        dump(run, tmp_path / "config.toml")
        assert load(Run, tmp_path / "config.toml") == run
        assert Run(data=run.data) == run


def test_the_documented_mixture_loads():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    tables = [text.split("```")[0] for text in page.split("```toml\n")[1:]]
    kinds = [type(validate(Run, tomllib.loads(text), "data.md").data) for text in tables]
    assert kinds == [DataConfig, MixtureConfig]
