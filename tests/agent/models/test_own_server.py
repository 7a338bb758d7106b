"""Our own server in a process of its own, which forces JSON and calls; and the guide's example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from selenite.agent.models.cache import Cache
from selenite.agent.models.endpoint import Endpoint
from selenite.agent.models.failure import ModelError, Reason
from selenite.agent.models.model import Model
from selenite.agent.models.totals import read_ledger
from selenite.types import Message, ToolSpec
from tests.fixtures.server import KEY, ServerProcess, make_model

pytestmark = pytest.mark.slow  # a server of our own is started

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "models.md"
ASKED = [Message("user", "Is it raining? größe 你好 🙂")]
SCHEMA = {
    "type": "object",
    "properties": {"rain": {"type": "boolean"}, "place": {"enum": ["Oslo", "Rome"]}},
    "required": ["rain", "place"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    started = ServerProcess(make_model(tmp_path_factory.mktemp("model")))
    yield started
    started.stop()


def test_it_is_forced_to_answer_as_asked(server: ServerProcess, tmp_path: Path) -> None:
    """The model is random: what is right is so by the grammar, at the first try."""
    endpoint = Endpoint(server.url, "tiny", KEY, timeout=60)
    tool = ToolSpec("forecast.get", "The weather.", SCHEMA)
    with Model(endpoint, "judge", cache=Cache(tmp_path)) as model:
        replies = [model.json(ASKED, SCHEMA, max_tokens=64, seed=seed) for seed in range(4)]
        again = [model.json(ASKED, SCHEMA, max_tokens=64, seed=seed) for seed in range(4)]
        called = model.complete(ASKED, tools=[tool], tool_choice="required", max_tokens=200, seed=1)
        after = [*ASKED, called.message]
        after += [Message("tool", "Rain.", tool_call_id=call.id) for call in called.tool_calls]
        model.complete(after, tools=[tool], tool_choice="none", max_tokens=8, seed=1)
        totals = model.ledger.totals()
    assert replies == again
    assert len({str(reply) for reply in replies}) > 1
    assert called.tool_calls
    assert all(check.valid for check in called.call_checks)
    assert (totals.counts["requests"], totals.counts["cached"]) == (6, 4)
    assert not totals.faults
    assert totals.counts["unmetered"] == 0
    assert totals.counts["tokens_in"] > 6 * 10
    totals.check_integrity()
    with Model(endpoint, "judge") as model:
        fresh = [model.json(ASKED, SCHEMA, max_tokens=64, seed=seed) for seed in range(4)]
    assert fresh == replies


def test_it_refuses_a_wrong_key(server: ServerProcess) -> None:
    with Model(Endpoint(server.url, "tiny", "wrong"), "judge") as model:
        with pytest.raises(ModelError) as failed:
            model.complete(ASKED)
        assert model.ledger.totals().counts["requests"] == 1
    assert failed.value.reason is Reason.REFUSED
    assert "wrong" not in failed.value.detail


def test_the_example_of_the_guide(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    assert example.count("http://127.0.0.1:8000") == 1
    example = example.replace("http://127.0.0.1:8000", server.url).replace('"nano"', '"tiny"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELENITE_API_KEY", KEY)
    exec(compile(example, str(GUIDE), "exec"), {})
    totals = read_ledger(tmp_path / "runs" / "synth" / "ledger.jsonl")
    assert totals.calls == totals.succeeded + totals.failed.total() > 0
    totals.check_integrity()
