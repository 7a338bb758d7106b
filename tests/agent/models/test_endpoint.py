"""Endpoints: their addresses, what must not be in them, and the bodies that they get."""

from __future__ import annotations

from typing import Any

import pytest

from selenite.agent.models.endpoint import Endpoint
from selenite.agent.models.model import Model
from selenite.errors import ConfigError
from tests.agent.models.stub import ASKED, answer, model_at, scripted, sent


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/chat/completions"),
        ("https://api.example.com/api/v4", "https://api.example.com/api/v4/chat/completions"),
    ],
)
def test_addresses(base: str, url: str) -> None:
    assert Endpoint(base, "m").chat_url == url


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "must be like"),
        ({"model": ""}, "model=''"),
        ({"api_key": ""}, "api_key: must be"),
        ({"api_key": "secret\n"}, "api_key: must be"),
        ({"api_key": "schlüssel"}, "api_key: must be"),
        ({"timeout": 0.0}, "timeout=0.0: must be above 0"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"json_mode": "json"}, "json_mode='json': must be one of json_schema"),
        ({"limit_field": "limit"}, "limit_field='limit': must be one of max_tokens"),
        ({"extra": {"model": "n"}}, "extra.model: is set by each call"),
        ({"extra": {"top_p": {1}}}, "must be JSON"),
        ({"extra": {"top_p": float("nan")}}, "must be JSON"),
    ],
)
def test_what_is_no_endpoint(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        Endpoint(**{"base_url": "http://127.0.0.1:9", "model": "m", **fields})
    assert "secret" not in str(raised.value)


def test_repairs_below_none() -> None:
    with pytest.raises(ConfigError, match="repairs=-1"):
        Model(Endpoint("http://127.0.0.1:9", "m"), "judge", repairs=-1)


def test_a_body_has_what_was_asked_for_and_no_more() -> None:
    extra = {"top_p": 0.9, "temperature": 0.1, "chat_template_kwargs": {"thinking": False}}
    options = {"extra": extra, "limit_field": "max_completion_tokens"}
    with scripted(answer("x")) as server, model_at(server.url, **options) as model:
        model.complete(ASKED)
        model.complete(ASKED, temperature=0.0, max_tokens=5, seed=0)
    plain, full = sent(server)
    assert plain.keys() == {"model", "messages", *extra}
    assert plain["temperature"] == 0.1
    assert full["temperature"] == full["seed"] == 0
    assert full["max_completion_tokens"] == 5
    assert full["top_p"] == 0.9
