"""A corpus in which models have roles: what they gave is in it, counted, and asked for once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from selenite.agent.models.totals import read_ledger
from selenite.agent.ontology.archetypes import Addition, categories, extend
from selenite.agent.ontology.evolve import make_domain
from selenite.agent.roles.role import Role
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.extension import read_additions
from selenite.agent.synthesis.pipeline import synthesize, trajectories
from selenite.agent.world.setting import Setting
from selenite.cli.main import app
from selenite.errors import ConfigError, DataError, EndpointError
from tests.agent.models.stub import answer
from tests.agent.roles.stub import ADDED, ARCHETYPE, config_of, original, text
from tests.agent.test_synthesis import digests
from tests.fixtures.scripted_server import Answer, ScriptedServer, scripted_server
from tests.fixtures.server import free_port

WORDING = (Role.TASK_AUTHOR, Role.TOOL_AUTHOR, Role.AGENT_AUTHOR, Role.USER)
ROLES = (Role.DOMAIN_AUTHOR, *WORDING, Role.JUDGE)
ASKED = 34  # archetypes: of the first categories a second one, which is no other


@dataclass
class Author:
    """An endpoint with good answers in every role that words or judges, until it is broken."""

    server: ScriptedServer
    is_broken: bool = False

    def __call__(self, body: dict[str, Any]) -> Answer:
        if self.is_broken and body["messages"][-1]["content"] != "Hello.":  # not when it is checked
            return Answer(status=503)
        if body["model"] == Role.JUDGE:
            return text({"reason": "It did what was wanted.", "verdict": True})
        if body["model"] == Role.DOMAIN_AUTHOR:
            return text(ARCHETYPE)
        return text({"text": ADDED + original(body)})

    @property
    def num_asked(self) -> int:
        return len(self.server.requests)


@pytest.fixture(scope="module")
def author() -> Iterator[Author]:
    found: Author | None = None

    def script(path: str, body: Any) -> Answer:
        assert found is not None
        return found(body)

    with scripted_server(script) as server:
        found = Author(server)
        yield found


def make(author: Author, folder: Path, *roles: Role, **changes: Any) -> SynthesisConfig:
    config = config_of(
        author.server.url, *roles, retries=0, votes=1, repairs=0, cache_dir=folder / "cache"
    )
    sizes = {"seed": 3, "domains": 8, "tasks": 45, "shard_tasks": 15, "workers": 2}
    return SynthesisConfig(out_dir=folder / "out", roles=config, **(sizes | changes))


@pytest.fixture(scope="module")
def made(author: Author, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    synthesize(make(author, folder, *ROLES, archetypes=ASKED))
    return folder


def test_what_models_gave_is_in_the_corpus_and_counted(made: Path) -> None:
    manifest = json.loads((made / "out" / "manifest.json").read_text())
    counts = manifest["models"]["roles"]
    assert counts.keys() == {role.value for role in ROLES}
    for name, one in counts.items():
        kept, failed = sum(one["kept"].values()), sum(one["failed"].values())
        assert one["asked"] == one["accepted"] + kept + failed > 0, name
    assert counts["domain_author"]["asked"] == ASKED
    added = len(read_additions(made / "out"))
    assert counts["domain_author"]["failed"] == {"not_new": ASKED - added}
    assert manifest["models"]["splits"] == {"1-0": manifest["accepted"]}
    assert manifest["tasks"] == 45
    assert manifest["accepted"] + sum(manifest["rejected"].values()) == 45
    rows = list(trajectories(made / "out"))
    assert len(rows) >= 30
    for row in rows:
        assert set(row["models"]) <= {role.value for role in WORDING}
        assert ("user" in row["models"]) == any(
            m["role"] == "user" and m["content"].startswith(ADDED) for m in row["messages"]
        )
        assert all(tool["function"]["description"].startswith(ADDED) for tool in row["tools"])


def test_domains_evolve_from_proposed_archetypes(made: Path) -> None:
    additions = read_additions(made / "out")
    assert len(categories()) - 3 < len(additions) <= len(categories())
    assert {one.name for one in additions} == {"loyalty_card"}
    extension = extend(additions)
    domains = [make_domain(3, number, extension) for number in range(60)]
    assert any("loyalty_card" in domain.by_entity for domain in domains)
    rows = list(trajectories(made / "out"))
    assert {row["task"]["setting"]["extension"] for row in rows} == {extension}
    for row in rows:
        domain = Setting(**row["task"]["setting"]).evolved
        assert {tool["function"]["name"] for tool in row["tools"]} <= set(domain.by_tool)


def test_an_extension_is_known_by_what_it_adds() -> None:
    one = Addition("commerce", "loyalty_card", ("holder person !", "points count 0..500 points"))
    assert extend([]) == ""
    assert extend([one]) == extend([one]) != extend([one, one])
    assert make_domain(3, 4, extend([])) == make_domain(3, 4)
    with pytest.raises(DataError, match="extension 0123: its archetypes are not known here"):
        make_domain(3, 4, "0123")


def test_the_same_bytes_for_one_worker_and_a_second_run_asks_nothing(
    author: Author, made: Path, tmp_path: Path
) -> None:
    """The cache is copied: answers are the same ones, whoever asks first and how many at once."""
    shutil.copytree(made / "cache", tmp_path / "cache")
    before = author.num_asked
    config = make(author, tmp_path, *ROLES, archetypes=ASKED, workers=1)
    synthesize(config)
    assert author.num_asked == before
    assert digests(tmp_path / "out") == digests(made / "out")

    (tmp_path / "out" / "shards" / "00001.json").unlink()
    synthesize(config)
    assert author.num_asked == before
    assert digests(tmp_path / "out") == digests(made / "out")


def test_other_archetypes_make_another_corpus(
    author: Author, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made of archetypes that are gone is made again of those that are there."""
    config = make(author, tmp_path, *ROLES, archetypes=ASKED)
    shutil.copytree(made / "out", tmp_path / "out")
    old = extend(read_additions(tmp_path / "out"))
    with (tmp_path / "out" / "archetypes.json").open("a") as file:
        file.write(" ")
    monkeypatch.setitem(ARCHETYPE, "name", "gift_card")
    synthesize(config)
    new = extend(read_additions(tmp_path / "out"))
    assert new != old
    rows = list(trajectories(tmp_path / "out"))
    assert {row["task"]["setting"]["extension"] for row in rows} == {new}
    assert json.loads((tmp_path / "out" / "repository.json").read_text())["extension"] == new
    shown = CliRunner().invoke(app, ["synth", "show", str(tmp_path / "out"), rows[0]["id"]])
    assert shown.exit_code == 0, shown.output

    (tmp_path / "b" / "out").mkdir(parents=True)
    shutil.copy(made / "out" / "archetypes.json", tmp_path / "b" / "out")
    with pytest.raises(DataError, match="nothing says what the corpus is of"):
        synthesize(make(author, tmp_path / "b", *ROLES, archetypes=ASKED))


def test_a_broken_endpoint_stops_it_and_it_goes_on_later(author: Author, tmp_path: Path) -> None:
    config = make(author, tmp_path, Role.USER, tasks=30)
    author.is_broken = True
    try:
        with pytest.raises(
            EndpointError, match=r"shard 0: endpoints failed for 2 of 15 .*server_e"
        ):
            synthesize(config)
        assert not list((tmp_path / "out" / "shards").glob("*"))
        for count, failed in ((4, 1), (330, 44)):
            said = f"archetypes: endpoints failed for {failed} of {count} items"
            with pytest.raises(EndpointError, match=said):
                synthesize(make(author, tmp_path / "b", Role.DOMAIN_AUTHOR, archetypes=count))
            assert not (tmp_path / "b" / "out" / "archetypes.json").exists()
            shutil.rmtree(tmp_path / "b")
        allowed = make(author, tmp_path / "c", Role.USER, tasks=15, most_failed=1)
        assert synthesize(allowed)["models"]["roles"]["user"]["accepted"] == 0
    finally:
        author.is_broken = False
    found = synthesize(config)["models"]["roles"]["user"]
    assert found["accepted"] == found["asked"] > 0


def test_how_an_endpoint_is_reached_does_not_matter_and_its_model_does(
    author: Author, tmp_path: Path
) -> None:
    config = make(author, tmp_path, Role.USER, tasks=15)
    synthesize(config)
    endpoint = config.roles.endpoints["user"]

    def with_(**changes: Any) -> SynthesisConfig:
        endpoints = {"user": endpoint.model_copy(update=changes)}
        roles = config.roles.model_copy(update={"endpoints": endpoints})
        return config.model_copy(update={"roles": roles})

    assert synthesize(with_(base_url="http://127.0.0.1:9", at_once=2, retries=3))["tasks"] == 15
    with pytest.raises(ConfigError, match=r"other settings \(roles\)"):
        synthesize(with_(model="another"))


def test_an_endpoint_that_is_not_there_is_said_before_anything_is_made(
    author: Author, tmp_path: Path
) -> None:
    config = make(author, tmp_path, Role.USER)
    nowhere = f"http://127.0.0.1:{free_port()}"
    endpoint = config.roles.endpoints["user"].model_copy(update={"base_url": nowhere, "retries": 5})
    ledger = tmp_path / "ledger.jsonl"
    roles = config.roles.model_copy(update={"endpoints": {"user": endpoint}, "ledger": ledger})
    with pytest.raises(EndpointError, match=f"{nowhere}, user: connection: .*see to the endpoint"):
        synthesize(config.model_copy(update={"roles": roles}))
    assert read_ledger(ledger).counts["requests"] == 1  # it is not waited for
    assert not (tmp_path / "out" / "repository.json").exists()


def test_proposals_of_which_none_is_of_use_are_not_kept(tmp_path: Path) -> None:
    with scripted_server(lambda path, body: text({**ARCHETYPE, "fields": ["x", "y"]})) as server:
        config = make(Author(server), tmp_path, Role.DOMAIN_AUTHOR, archetypes=3)
        with pytest.raises(DataError, match=r"none of 3 proposals can be used .*unreadable"):
            synthesize(config)
    assert not (tmp_path / "out" / "archetypes.json").exists()


def test_a_missing_key_is_said_before_anything_is_made(author: Author, tmp_path: Path) -> None:
    config = make(author, tmp_path, Role.USER)
    endpoint = config.roles.endpoints["user"].model_copy(update={"api_key_env": "NO_SUCH_KEY"})
    roles = config.roles.model_copy(update={"endpoints": {"user": endpoint}})
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        synthesize(config.model_copy(update={"roles": roles}))
    assert not (tmp_path / "out" / "repository.json").exists()


def test_who_proposes_archetypes_is_said_with_their_number(author: Author, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"archetypes=5: roles\.domain_author is code"):
        make(author, tmp_path, Role.USER, archetypes=5)
    with pytest.raises(ValueError, match=r"archetypes=0: roles\.domain_author is a model"):
        make(author, tmp_path, Role.DOMAIN_AUTHOR)


def test_from_the_command_line(author: Author, tmp_path: Path) -> None:
    path = tmp_path / "corpus.toml"
    path.write_text(f"""
out_dir = "{tmp_path / "out"}"
seed = 3
domains = 4
tasks = 12
archetypes = 3

[roles]
domain_author = [{{ endpoint = "small" }}]
user = [{{ weight = 1 }}, {{ weight = 1, endpoint = "user" }}]

[roles.endpoints.small]
base_url = "{author.server.url}"
model = "domain_author"

[roles.endpoints.user]
base_url = "{author.server.url}"
model = "user"
""")
    done = CliRunner().invoke(app, ["synth", "make", str(path)])
    assert done.exit_code == 0, done.output
    assert "domain_author: 3 of 3 accepted" in done.output
    assert "user: " in done.output
    rows = list(trajectories(tmp_path / "out"))
    by_model = next(row for row in rows if row["models"])
    assert any(not row["models"] for row in rows)
    shown = CliRunner().invoke(app, ["synth", "show", str(tmp_path / "out"), by_model["id"]])
    assert "by user " in shown.output
    name = Setting(**rows[0]["task"]["setting"]).evolved.id
    world = CliRunner().invoke(app, ["synth", "show", str(tmp_path / "out"), name])
    assert world.exit_code == 0, world.output
    assert name in world.output


def test_models_that_vote_against_reject(tmp_path: Path) -> None:
    def against(path: str, body: Any) -> Answer:
        if body["messages"][-1]["content"].count("a") % 2:
            return answer("no idea")
        return text({"reason": "I do not like it.", "verdict": False})

    with scripted_server(against) as server:
        config = make(Author(server), tmp_path, Role.JUDGE, tasks=30)
        manifest = synthesize(config)
    splits = manifest["models"]["splits"]
    assert splits.keys() == {"0-1", "0-0-1"}
    assert manifest["rejected"]["model"] == splits["0-1"]
    assert manifest["accepted"] == splits["0-0-1"]
