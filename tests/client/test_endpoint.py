"""Where a server is, and that load stays on this machine unless told otherwise."""

from __future__ import annotations

import pytest

from selenite.client.endpoint import Endpoint, message_of
from selenite.errors import ConfigError, EndpointError
from tests.fixtures.scripted_server import MODELS, json_answer, scripted_server


@pytest.mark.parametrize(
    ("url", "is_loopback"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.8.9.1", True),
        ("http://localhost:8000/v1/", True),
        ("http://[::1]:8000", True),
        ("http://0.0.0.0:8000", False),
        ("http://10.0.0.1:8000", False),
        ("https://api.example.com/v1", False),
        ("http://127.0.0.1.example.com", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1@example.com", False),
    ],
)
def test_loopback_by_address(url: str, is_loopback: bool) -> None:
    endpoint = Endpoint.parse(url)
    assert endpoint.is_loopback is is_loopback
    endpoint.require_loopback(is_remote_allowed=True)
    if not is_loopback:
        with pytest.raises(ConfigError, match="--allow-remote"):
            endpoint.require_loopback(is_remote_allowed=False)


def test_v1_is_taken_off() -> None:
    assert Endpoint.parse("http://127.0.0.1:8000/v1/").path("/v1/models").endswith("8000/v1/models")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://a:b:c"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="must be like"):
        Endpoint.parse(url)


def test_the_key_and_the_models() -> None:
    with scripted_server(lambda path, body: MODELS) as server:
        endpoint = Endpoint.parse(server.url, "a-key")
        assert endpoint.served_model() == "scripted"
        assert endpoint.headers["Authorization"] == "Bearer a-key"
    with pytest.raises(EndpointError, match="selenite serve MODEL"):
        endpoint.served_model()
    refusal = json_answer({"error": {"message": "no such key"}}, 401)
    with (
        scripted_server(lambda path, body: refusal) as server,
        pytest.raises(EndpointError, match="HTTP 401: no such key"),
    ):
        Endpoint.parse(server.url).served_model()
    with (
        scripted_server(lambda path, body: json_answer([])) as server,
        pytest.raises(EndpointError, match="not a list of models"),
    ):
        Endpoint.parse(server.url).served_model()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "m"}}', "m"),
        (b'{"error": "m"}', "m"),
        (b'{"message": "m"}', "m"),
        (b'{"detail": "m"}', '{"detail": "m"}'),
        (b"<html>", "<html>"),
        (b"", ""),
    ],
)
def test_messages_of_errors(body: bytes, message: str) -> None:
    assert message_of(body) == message


@pytest.mark.parametrize(
    ("url", "is_encrypted"),
    [("http://127.0.0.1:1", False), ("HTTP://a", False), ("https://a", True), ("HTTPS://a", True)],
)
def test_certificates_are_read_where_they_are_needed(url: str, is_encrypted: bool) -> None:
    assert Endpoint.parse(url).is_encrypted is is_encrypted
