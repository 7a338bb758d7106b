"""Long texts told to an engine: what it makes of them is what the model makes of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from selenite.chat.tokenizer import Tokenizer
from selenite.cli.main import app
from selenite.errors import CheckpointError, ConfigError
from selenite.eval.longcontext.methods import FULL, KINDS, METHODS, Cell, Sizes, measure_methods
from selenite.eval.longcontext.report import draw, tables
from selenite.eval.longcontext.text import Found, needles, prose_ids, windows
from selenite.eval.longcontext.told import Pace, Passage, tell
from selenite.model.config import ModelConfig
from selenite.model.hf_adapter import load_pretrained, read_config, save_pretrained
from selenite.ops.attention_context import packed_context
from selenite.serve.attention_mode import (
    TidalAttention,
    read_mode,
    reading_of,
    stored_layers,
)
from selenite.serve.engine.engine import Engine, EngineConfig
from tests.fixtures.server import make_model
from tests.fixtures.tiny import tiny_model

SIZES = Sizes((256, 320), (0.3,), windows=2, told=8, depths=3, each=1, at_once=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("longcontext"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def cells(folder: Path) -> list[Cell]:
    return measure_methods(folder, torch.float32, SIZES, list(METHODS))


@torch.no_grad()
def test_what_is_heard_is_the_models_own(folder: Path, tokenizer: Tokenizer) -> None:
    model = load_pretrained(folder, torch.float32)
    ids = prose_ids(tokenizer, 1000)
    passages = [Passage(tuple(ids[:70]), tuple(ids[70:90])), Passage((1, 2, 3), tuple(ids[:33]))]
    heard, pace = tell(Engine(model, EngineConfig(64)), passages, read_mode("full"))
    for passage, own in zip(passages, heard, strict=True):
        tokens = torch.tensor(passage.prompt + passage.told)
        context = packed_context([len(tokens)])
        hidden_TD = model(tokens, context.positions_T, context).hidden_TD
        logprob_TV = model.logits(hidden_TD).float().log_softmax(-1)[len(passage.prompt) - 1 : -1]
        told = torch.tensor(passage.told)
        expected = logprob_TV.gather(1, told[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(own.logprobs), expected, rtol=1e-4, atol=1e-4)
        assert list(own.is_first) == (logprob_TV.argmax(1) == told).tolist()
    assert 0 < pace.tokens <= 20 + 33
    assert pace.seconds > 0


def test_needles_lie_where_they_should_and_are_asked_for(tokenizer: Tokenizer) -> None:
    ids = prose_ids(tokenizer, 1000)
    found = needles(tokenizer, ids, 400, 5, 2)
    assert [needle.depth for needle in found] == [(d + 0.5) / 5 for _ in range(2) for d in range(5)]
    assert len({needle.passage.prompt for needle in found}) == 2  # with a needle of each depth
    codes = set()
    for needle in found:
        assert len(needle.passage.prompt) == needle.length == 400
        text = tokenizer.decode(needle.passage.prompt)
        asked = tokenizer.decode(needle.passage.told)
        answer = tokenizer.decode(needle.passage.told[-needle.answer :]).strip()
        assert len(answer) == 5
        assert answer.isdigit()
        assert text.count(answer) == 1
        assert asked.endswith(f"is {answer}")
        assert asked.strip() in text
        codes.add(answer)
        assert text.count("The pass code") == 5
        place = text.index(asked.strip()) / (len(text) - len(asked) - 15)
        assert place == pytest.approx(needle.depth, abs=0.1)
    assert len(codes) == 10
    assert found == needles(tokenizer, ids, 400, 5, 2)
    assert found != needles(tokenizer, ids, 400, 5, 2, seed=1)
    for length, depths in ((400, 101), (60, 5), (2000, 5)):
        with pytest.raises(ConfigError, match="take fewer"):
            needles(tokenizer, ids[:1000], length, depths, 1)


def test_questions_lie_beside_needles(tokenizer: Tokenizer) -> None:
    ids = prose_ids(tokenizer, 1000)
    codes, jobs = (
        [found for found in needles(tokenizer, ids, 500, 3, 1, kinds=KINDS) if found.kind == kind]
        for kind in KINDS
    )
    assert len({found.passage.prompt for found in (*codes, *jobs)}) == 1
    text = tokenizer.decode(codes[0].passage.prompt)
    places = []
    for job in jobs:
        asked = tokenizer.decode(job.passage.told[: -job.answer])
        (name,) = re.findall(r"the job of (\w+)\?", asked)
        answer = tokenizer.decode(job.passage.told[-job.answer :])
        assert asked.endswith(f"Answer: {name} works as a")
        assert text.count(f"{name} works as a{answer}.") == text.count(name) == 1
        places.append(text.index(name))
    assert places == sorted(places)
    with pytest.raises(ConfigError, match="names for 20"):
        needles(tokenizer, ids, 1500, 21, 1, kinds=["job"])


def test_windows_are_what_the_prose_says(tokenizer: Tokenizer) -> None:
    ids = prose_ids(tokenizer, 1000)
    found = windows(ids, tokenizer.bos_id, 100, 20, 4)
    assert len(found) == 4
    text = " ".join(map(str, ids))
    for passage in found:
        assert passage.prompt[0] == tokenizer.bos_id
        assert len(passage.prompt) == 100
        assert " ".join(map(str, (*passage.prompt[1:], *passage.told))) in text
    assert found[0].prompt[1:] == tuple(ids[:99])
    assert found[-1].told == tuple(ids[-20:])
    with pytest.raises(ConfigError, match="take fewer windows"):
        prose_ids(tokenizer, 10**9)


def test_every_method_has_its_cell(cells: list[Cell]) -> None:
    kinds = [(cell.method, cell.length) for cell in cells]
    assert kinds == [(name, length) for length in (256, 320) for name in (FULL, *METHODS)]
    for cell in cells:
        assert len(cell.losses) == 2
        for found in (cell.needles, cell.answers):
            assert [fact.depth for fact in found] == [1 / 6, 3 / 6, 5 / 6]
        assert cell.pace.tokens > 0
    full, *others = (cell for cell in cells if cell.length == 320)
    assert full.pace.slots_per_request > 320
    for other in others:
        if other.method == "TidalDecode":  # of two layers both read everything
            assert other.losses == pytest.approx(full.losses, rel=1e-5)
        else:
            assert other.losses != pytest.approx(full.losses, rel=1e-4)
            assert other.pace.slots_per_request < 0.3 * 320 + 33


def test_tables_and_a_map(cells: list[Cell], tmp_path: Path) -> None:
    first, second = tables(cells)
    assert first.title is not None
    assert "256 tokens" in first.title
    assert second.row_count == 1 + len(METHODS)
    draw(tmp_path / "map.png", cells)
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    bare = Cell(FULL, 10, 1.0, (1.0,), (), (), Pace(1, 1.0, 1))
    is_found, is_lost = Found(0.0, True, 0.1), Found(0.0, False, 0.1)
    found = Cell("SnapKV", 10, 0.5, (2.0,), (is_found,), (is_lost,), Pace(1, 1.0, 1))
    (table,) = tables([bare, found])
    texts = [list(column.cells) for column in table.columns]
    assert texts[2] == ["1.000 itself", "+1.0000 (+1.0000 to +1.0000)"]
    assert texts[3] == ["-", "1.00 (0.21 to 1.00)"]
    assert texts[5] == ["-", "0.00 (0.00 to 0.79)"]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    command = [
        *("eval", "longcontext", str(folder), "--length", "192", "--budget", "0.25"),
        *("--method", "KeepKV", "--windows", "1", "--told", "4", "--depths", "2", "--each", "1"),
        *("--dtype", "float32", "--out", str(tmp_path)),
    ]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "KeepKV" in shown.output
    (file,) = tmp_path.glob("*/longcontext.json")
    document = json.loads(file.read_bytes())
    assert [cell["method"] for cell in document["cells"]] == [FULL, "KeepKV"]
    assert (file.parent / "longcontext.png").exists()
    for wrong, message in (
        (["--method", "H3O"], "must be one of"),
        (["--length", "5000"], "take shorter ones"),
        (["--dtype", "int4"], "must be auto"),
    ):
        result = CliRunner().invoke(app, [*command, *wrong])
        assert isinstance(result.exception, ConfigError)
        assert message in str(result.exception)


def test_layers_are_swept_and_stored_with_the_model(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    deep = ModelConfig.model_validate({**read_config(folder).model_dump(), "num_layers": 6})
    save_pretrained(tiny_model(deep), folder)
    command = [
        *("eval", "layers", str(folder), "--budget", "16", "--length", "128", "--needles", "3"),
        *("--dtype", "float32"),
    ]
    shown = CliRunner().invoke(app, [*command, "--no-save"])
    assert shown.exit_code == 0, shown.output
    assert stored_layers(folder, deep) is None
    losses = {
        line.split(":")[0]: float(line.split(": ")[1].split()[0])
        for line in shown.output.splitlines()
        if "nats" in line
    }
    assert list(losses) == ["full attention", "1 and 2", "2 and 3", "2 and 4"]
    assert "2 and 4: " in shown.output
    assert shown.output.count("4 of 6 layers read all") == 2  # 1 and 2 are 3 layers
    best = min(("1 and 2", "2 and 3", "2 and 4"), key=losses.__getitem__)
    assert f"best: layers {best}" in shown.output
    assert CliRunner().invoke(app, command).exit_code == 0
    stored = stored_layers(folder, deep)
    assert stored == tuple(map(int, best.split(" and ")))
    for named, expected in ((None, stored), ([1], (1,))):
        mode = TidalAttention(mode="tidal", budget=16, layers=named)
        reading = reading_of(mode, deep, 16, tidal_layers=stored)
        assert reading.selection is not None
        assert reading.selection.layers == expected
    assert stored is not None
    more = CliRunner().invoke(app, [*command, "--add"])
    assert more.exit_code == 0, more.output
    three = stored_layers(folder, deep)
    assert three is not None
    assert {*stored} < {*three} <= {1, 2, 3, 4}
    other = CliRunner().invoke(app, [*command, "--replace", str(three[0])])
    tried = [line.split(":")[0] for line in other.output.splitlines() if "nats" in line][1:]
    assert tried == [
        " and ".join(map(str, sorted((*three[1:], layer))))
        for layer in range(1, 5)
        if layer not in three[1:]
    ]
    refused = CliRunner().invoke(app, [*command, "--replace", "0"])
    assert isinstance(refused.exception, ConfigError)
    assert "--replace 0: layers " in str(refused.exception)
    shallow = CliRunner().invoke(app, ["eval", "layers", str(make_model(tmp_path / "shallow"))])
    assert isinstance(shallow.exception, ConfigError)
    assert "gains nothing" in str(shallow.exception)
    for wrong in ('{"layers": [6]}', '{"layers": []}', '{"layers": "2"}', "[]", "{"):
        (folder / "tidal.json").write_text(wrong)
        with pytest.raises(CheckpointError, match="eval layers"):
            stored_layers(folder, deep)
