"""The OpenAPI description: it is there, and nothing that it allows is the server's fault."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from tests.fixtures.server import KEY, ServerProcess

OPERATIONS = {
    ("get", "/health"),
    ("get", "/load"),
    ("get", "/metrics"),
    ("get", "/requests"),
    ("get", "/stats"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{name}"),
    ("get", "/version"),
    ("post", "/detokenize"),
    ("post", "/generate"),
    ("post", "/tokenize"),
    ("post", "/v1/chat/completions"),
    ("post", "/v1/completions"),
    ("post", "/v1/embeddings"),
    ("post", "/v1/responses"),
}


def test_every_endpoint_and_error_is_described(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {(method, path) for path, methods in paths.items() for method in methods} == OPERATIONS
    for methods in paths.values():
        for operation in methods.values():
            assert {"400", "401", "404", "413", "429", "503"} <= set(operation["responses"])
            assert operation["description"]


@pytest.mark.slow
def test_schemathesis_finds_no_fault_of_the_server(server: ServerProcess) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=headers)
    for found in schema.get_all_operations():
        operation = found.ok()

        def check(case: Any) -> None:
            if isinstance(case.body, dict):  # short answers, in one piece
                limits = {"max_tokens": 2, "max_completion_tokens": 2, "max_output_tokens": 2}
                case.body |= limits | {"stream": False, "min_tokens": 0}
            response = case.call(headers=headers, timeout=30)
            assert response.status_code < 500, (case.as_curl_command(), response.text)

        relaxed = settings(
            max_examples=100,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        relaxed(given(operation.as_strategy())(check))()
