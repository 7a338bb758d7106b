"""Makes what a run of ``selenite sft`` with adapters learnt small enough to be kept here.

    python -m experiments.publish_adapter RUN [adapters/smollm2-agent]

The adapter in bfloat16, the template that it was taught with, and the run's config as
``recipe.toml``. ``selenite convert BASE TARGET --adapter adapters/smollm2-agent`` makes the model
again; scores are measured on that one (``experiments.agentic_scores``).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from selenite import atomic
from selenite.chat.tokenizer import Tokenizer
from selenite.model.lora_files import CONFIG, WEIGHTS

PUBLISHED = Path("adapters/smollm2-agent")
MOST_BYTES = 20_000_000


def main(arguments: Sequence[str]) -> None:
    run, *others = map(Path, arguments)
    folder = others[0] if others else PUBLISHED
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.to(torch.bfloat16)
        for name, tensor in load_file(run / "adapter" / WEIGHTS).items()
    }
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    shutil.copyfile(run / "adapter" / CONFIG, folder / CONFIG)
    shutil.copyfile(run / "config.toml", folder / "recipe.toml")
    template = Tokenizer.load(run).chat_template
    assert template is not None
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    size = (folder / WEIGHTS).stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{folder / WEIGHTS}: {size:,} bytes are more than {MOST_BYTES:,}")
    print(f"{folder / WEIGHTS}: {size:,} bytes, SHA-256 {atomic.sha256(folder / WEIGHTS)}")


if __name__ == "__main__":
    main(sys.argv[1:])
