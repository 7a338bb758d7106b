"""Updates of ``selenite rl run``, one for each line that comes in: ``python -m
benchmarks.engines.with_selenite_rl JOB``.

The job is JSON; ``rl_vs_trl.Job`` says what it has.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["OMP_NUM_THREADS"] = str(json.loads(sys.argv[1])["threads"])

import tempfile
import time
from contextlib import ExitStack

from benchmarks.engines.protocol import say
from selenite.clock import SystemClock
from selenite.ops import allocator
from selenite.rl.config import RlConfig
from selenite.rl.run import open_task
from selenite.runtime import apply_threads, torch_dtype
from selenite.train.step import train_step

job = json.loads(sys.argv[1])
apply_threads()
allocator.install()
samples = job["groups"] * job["size"]
with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
    config = RlConfig.model_validate(
        {
            "train": {
                "init_from": job["model"],
                "out_dir": f"{directory}/run",
                "steps": 1000,
                "batch_tokens": job["micro_batch_tokens"],
                "micro_batch_tokens": job["micro_batch_tokens"],
                "seq_len": min(job["micro_batch_tokens"], 1024),
                "eval_every": 1000,
                "checkpoint_every": 1000,
                "dtype": job["dtype"],
            },
            "environments": [
                {
                    "kind": "python",
                    "factory": "benchmarks.engines.prompted:Prompted",
                    "settings": {"questions": job["questions"], "tokens": job["tokens"]},
                }
            ],
            "objective": {"kind": "grpo"},
            "rollouts": {
                "groups": job["groups"],
                "size": job["size"],
                "at_once": samples,
                "cache_tokens": job["cache_tokens"],
                "actor": {"truncated": 0.0},  # as in the peer: a reply that is cut earns nothing
            },
            "optim": {"name": "adamw", "lr": job["lr"], "qk_clip_tau": None},
            "schedule": {"kind": "constant", "warmup_fraction": 0.0},
        }
    )
    config.train.out_dir.mkdir()
    task = open_task(config, "cpu", torch_dtype(job["dtype"]), SystemClock(), stack)
    say(ready=True)
    for step, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        metrics = train_step(task, step)
        say(
            seconds=time.perf_counter() - start,
            generating=metrics["rollout_seconds"],
            length=metrics["length"],
            cut=metrics["truncated"],
            degenerate=metrics["degenerate"],
            other={name: value for name, value in metrics.items() if "seconds" in name},
        )
