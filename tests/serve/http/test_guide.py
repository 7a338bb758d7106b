"""The examples of docs/serve.md, run as they stand but for names, address and key."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.server import KEY, ServerProcess

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "serve.md"
SECTION = GUIDE.read_text(encoding="utf-8").partition("## Ask it")[2].partition("\n## ")[0]
CURL, PYTHON, BATCH = re.findall(r"^```\w+\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def run(command: list[str], where: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def adapt(text: str, server: ServerProcess) -> str:
    text = text.replace("http://127.0.0.1:8000", server.url).replace('"nano"', '"tiny"')
    text = text.replace('api_key="none"', f'api_key="{KEY}"')
    return text.replace(" -H 'Content-Type", f" -H 'Authorization: Bearer {KEY}' -H 'Content-Type")


def test_curl(server: ServerProcess, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    answer = json.loads(run(["sh", "-ec", adapt(CURL, server)], tmp_path))
    assert answer["usage"]["completion_tokens"] > 0, answer


def test_the_official_client_calls_a_tool_and_goes_on(
    server: ServerProcess, tmp_path: Path
) -> None:
    printed = run([sys.executable, "-c", adapt(PYTHON, server)], tmp_path)
    name, _, rest = printed.partition(" ")
    arguments, end = json.JSONDecoder().raw_decode(rest)
    assert name == "get_weather"
    assert arguments["city"] in ("Oslo", "Rome")
    assert rest[end:].strip("\n"), "nothing was streamed after the tool's answer"


def test_a_file_of_requests(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    command = adapt(BATCH, server).replace("runs/nano", str(model))
    run(["sh", "-ec", command], tmp_path)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert {json.loads(line)["custom_id"] for line in lines} == {"a", "b"}
    assert all(json.loads(line)["response"]["status_code"] == 200 for line in lines)
