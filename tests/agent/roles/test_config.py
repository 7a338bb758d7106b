"""Who takes which role, as a file says it; and what is wrong with a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from selenite.agent.models.config import EndpointConfig
from selenite.agent.models.rate import Limits
from selenite.agent.models.totals import read_ledger
from selenite.agent.roles.config import RolesConfig
from selenite.agent.roles.role import Role
from selenite.agent.roles.roles import open_roles
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.pipeline import synthesize
from selenite.config import dump, load
from selenite.errors import ConfigError
from tests.agent.roles.stub import ADDED, ARCHETYPE, asked, text
from tests.fixtures.scripted_server import Answer, scripted_server

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "models.md"
TEXT = """
cache_dir = "cache"
ledger = "ledger.jsonl"
user = [{ weight = 3 }, { endpoint = "small", temperature = 0.9 }]
judge = [{ endpoint = "large", votes = 5, repairs = 0 }]

[endpoints.small]
base_url = "http://127.0.0.1:8000"
model = "nano"
json_mode = "prompt"

[endpoints.large]
base_url = "https://llm.example.com/v1"
model = "large"
api_key_env = "LARGE_KEY"
input_price = 0.5
requests_per_minute = 60
extra = { top_p = 0.9 }
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LARGE_KEY", "sk-x")
    file = tmp_path / "roles.toml"
    file.write_text(TEXT)
    return file


def test_a_file(path: Path) -> None:
    config = load(RolesConfig, path, ["user.1.max_tokens=99"])
    assert (config.at_once(1), config.at_once(4)) == (16, 4)
    assert (config.most_processes, RolesConfig().most_processes > 1000) == (8, True)
    assert RolesConfig().at_once(1) == 1
    with open_roles(config, seed=3) as roles:
        users = [roles.of(Role.USER, number) for number in range(400)]
        small = next(user for user in users if user)
        assert 60 < sum(user is not None for user in users) < 140
        assert (small.temperature, small.max_tokens) == (0.9, 99)
        assert small.model.endpoint.json_mode == "prompt"
        assert small.label.startswith("nano ")
        large = roles.of(Role.JUDGE, 0)
        assert large is not None
        assert (large.votes, large.repairs, large.model.endpoint.api_key) == (5, 0, "sk-x")
        assert large.model.endpoint.extra == {"top_p": 0.9}
        others = set(Role) - {Role.USER, Role.JUDGE}
        assert all(roles.of(role, 0) is None for role in others)
    dump(config, path.with_name("again.toml"))
    assert load(RolesConfig, path.with_name("again.toml")) == config
    assert "sk-x" not in path.with_name("again.toml").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("user.1.endpoint=big", "user: there is no endpoint 'big'; known: small, large"),
        ("user.0.weight=0", "user.0.weight"),
        ("user.0.weight=inf", "user.0.weight"),
        ("user=[]", "user"),
        ("user.0.votes=3", "unknown key"),
        ("judge.0.votes=0", "judge.0.votes"),
        ("users=[]", "did you mean user"),
        ("endpoints.small.json_mode=xml", "json_mode"),
        ("endpoints.small.at_once=0", "at_once"),
    ],
)
def test_what_is_wrong_with_a_file(path: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(RolesConfig, path, [change])


def test_names_of_endpoints_are_names_of_folders() -> None:
    endpoint = EndpointConfig(base_url="http://x", model="m")
    with pytest.raises(ValueError, match=r"endpoints\.\.\./x"):
        RolesConfig(endpoints={"../x": endpoint})


def test_a_key_that_is_not_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LARGE_KEY")
    with pytest.raises(ConfigError, match="'LARGE_KEY': the environment has no such variable"):
        open_roles(load(RolesConfig, path), seed=0)
    config = load(RolesConfig, path, ["endpoints.small.base_url=nowhere"])
    with pytest.raises(ConfigError, match="nowhere"):
        open_roles(config, seed=0)


def test_processes_share_the_limits_of_an_endpoint() -> None:
    config = EndpointConfig(
        base_url="http://x", model="m", at_once=8, requests_per_minute=60, tokens_per_minute=None
    )
    assert config.limits(1) == Limits(8, 60, None)
    assert config.limits(4) == Limits(2, 15, None)
    assert config.limits(100) == Limits(1, 1, None)


def test_the_example_of_the_guide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    (config,) = re.findall(r"```toml\n(.*?)```", guide, re.S)
    (example,) = re.findall(r"```py\n(.*?)```", guide, re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELENITE_API_KEY", "sk-x")
    with scripted_server(lambda path, body: _answer(body)) as server:
        Path("corpus.toml").write_text(config.replace("http://127.0.0.1:8000", server.url))
        sizes = ["domains=4", "tasks=8", "archetypes=2", "most_failed=0"]
        made = synthesize(load(SynthesisConfig, "corpus.toml", sizes))
        exec(compile(example.replace("http://127.0.0.1:8000", server.url), str(GUIDE), "exec"), {})
    assert "'nano " in capsys.readouterr().out
    assert made["models"]["roles"].keys() == {"domain_author", "user", "task_author", "judge"}
    totals = read_ledger(tmp_path / "runs" / "ledger.jsonl")
    totals.check_integrity()
    assert totals.calls == totals.succeeded > 0


def _answer(body: dict[str, Any]) -> Answer:
    """Of one model in several roles."""
    if "verdict" in body["messages"][0]["content"]:
        return text({"reason": "It is well.", "verdict": True})
    if "new kind of record" in body["messages"][0]["content"]:
        return text(ARCHETYPE)
    said = asked(body).rpartition("in your own words:\n")[2]
    return text({"text": f"{ADDED}{said}"})
