"""``selenite bench serve``: load an OpenAI endpoint, ours or a peer's, and measure its answers."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from selenite.client.endpoint import Endpoint
    from selenite.eval.bench.prompts import Vocabulary
    from selenite.eval.bench.workload import Workload

bench = typer.Typer(no_args_is_help=True, help="Measure a server that runs.")

_ASSUMED_VOCABULARY = 1000  # tokens that every vocabulary has


@bench.callback()
def _group() -> None:
    """Keeps ``serve`` a sub-command while it is the only one."""


@bench.command()
def serve(
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    model: Annotated[
        str | None, typer.Option(help="The model there; the first that it lists.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="SELENITE_API_KEY", help="The server's key.")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option(help="Load a server that is not on this machine.")
    ] = False,
    endpoint: Annotated[str, typer.Option(help="completions or chat.")] = "completions",
    workload: Annotated[
        str, typer.Option(help="fixed, sharegpt (lengths like its chats) or trace.")
    ] = "fixed",
    num_prompts: Annotated[
        int | None, typer.Option(min=1, help="Requests; 100, or all of a trace.")
    ] = None,
    input_len: Annotated[int, typer.Option(help="Tokens of a prompt (fixed).")] = 256,
    output_len: Annotated[int, typer.Option(help="Tokens of an answer (fixed).")] = 128,
    prefix_len: Annotated[
        int, typer.Option(help="Tokens before every prompt that all share (fixed, sharegpt).")
    ] = 0,
    trace: Annotated[
        Path | None, typer.Option(help="File to replay: JSON lines like Mooncake's traces.")
    ] = None,
    trace_speed: Annotated[float, typer.Option(help="Divides the trace's times.")] = 1.0,
    length_scale: Annotated[
        float, typer.Option(help="Multiplies lengths (sharegpt, trace): 0.03125 is 1/32.")
    ] = 1.0,
    request_rate: Annotated[
        float | None, typer.Option(help="Arrivals a second; all at once (a trace: its own times).")
    ] = None,
    burstiness: Annotated[
        float, typer.Option(help="Shape of the gaps: 1 Poisson, below 1 bursts, above steadier.")
    ] = 1.0,
    max_concurrency: Annotated[
        int | None, typer.Option(help="Requests under way at once; the rest waits here.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of lengths, arrivals and words.")] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Directory of the model's tokenizer; else /tokenize.")
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="Draw prompts from the ids below it, without a tokenizer.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    ignore_eos: Annotated[
        bool, typer.Option(help="Ask for answers of exactly the length (vLLM's extension).")
    ] = True,
    extra_body: Annotated[str, typer.Option(help="JSON object: further fields.")] = "{}",
    goodput: Annotated[
        list[str] | None,
        typer.Option(help="Goals in ms, may be given several times: ttft:500, tpot:50, e2e:9000."),
    ] = None,
    num_warmups: Annotated[int, typer.Option(min=0, help="Unmeasured requests first.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.")] = 600.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write summary and every request here.")
    ] = None,
) -> None:
    """Send a workload, print throughput and latencies; exits with 1 where a request failed."""
    from rich.console import Console
    from rich.progress import Progress

    from selenite.client.endpoint import Endpoint
    from selenite.clock import SystemClock
    from selenite.eval.bench import report
    from selenite.eval.bench.load import Target, run_load, warm_up
    from selenite.eval.bench.prompts import PromptMaker
    from selenite.eval.bench.summary import parse_goals, summarise
    from selenite.log import CONSOLE

    goals = parse_goals(goodput or [])
    server = Endpoint.parse(url, api_key)
    server.require_loopback(allow_remote)
    if workload == "trace" or trace is not None:
        load = _trace(trace, num_prompts, trace_speed, length_scale)
    else:
        lengths = (input_len, output_len, prefix_len)
        load = _synthetic(workload, num_prompts or 100, lengths, length_scale, seed)
    load = _timed(load, request_rate, burstiness, seed)
    name = model or server.served_model()
    fields = {"temperature": temperature, **({"ignore_eos": True} if ignore_eos else {})}
    target = Target(server, name, endpoint, fields | _object(extra_body), max_concurrency, timeout)
    vocabulary = _vocabulary(server, name, endpoint, tokenizer, vocab_size)
    clock = SystemClock()
    for number in range(num_warmups):
        warm_up(target, load, PromptMaker(vocabulary, seed + 1 + number), clock)
    # Drawn seldom: it takes its time from the streams.
    with Progress(console=CONSOLE, transient=True, refresh_per_second=1) as progress:
        bar = progress.add_task("requests", total=len(load.requests))
        maker = PromptMaker(vocabulary, seed)
        records = run_load(target, load, maker, clock, lambda _: progress.advance(bar))
    summary = summarise(records, goals)
    run = {
        "client": f"selenite {version('selenite')}",
        "url": target.url,
        "model": name,
        "workload": load.description,
        "prompts": vocabulary.reason,
        "num_prompts": len(load.requests),
        "max_concurrency": max_concurrency,
        "seed": seed,
        "fields": target.fields,
        "num_warmups": num_warmups,
        "timeout": timeout,
    }
    if json_file is not None:
        report.write_json(json_file, run, summary, records)
    console = Console()
    report.show(console, f"{name} at {target.url}: {load.description}", summary)
    console.print(f"note: prompts are {vocabulary.reason}", highlight=False)
    if summary.errors:
        raise typer.Exit(1)


def _synthetic(
    kind: str, count: int, lengths: tuple[int, int, int], scale: float, seed: int
) -> Workload:
    from selenite.errors import ConfigError
    from selenite.eval.bench import workload

    input_len, output_len, prefix_len = lengths
    shared = f", {prefix_len} shared before them" if prefix_len else ""
    if kind == "fixed":
        requests = workload.fixed(count, input_len, output_len, prefix_len)
        description = f"{count} prompts of {input_len} tokens, {output_len} out{shared}"
    elif kind == "sharegpt":
        if not 0 < scale < math.inf:
            raise ConfigError(f"--length-scale {scale}: must be above 0 and finite")
        requests = workload.sharegpt_like(count, seed, prefix_len, scale)
        scaled = "" if scale == 1 else f", lengths times {scale:g}"
        description = f"{count} prompts, log-normal lengths like ShareGPT's{scaled}{shared}"
    else:
        raise ConfigError(f"--workload {kind}: must be fixed, sharegpt or trace")
    return workload.Workload(requests, (0.0,) * count, description)


def _trace(path: Path | None, count: int | None, speed: float, scale: float) -> Workload:
    from selenite.errors import ConfigError
    from selenite.eval.bench.trace import read_trace, replay
    from selenite.eval.bench.workload import Workload

    if path is None:
        raise ConfigError("--workload trace: needs the file, --trace FILE")
    requests, arrivals = replay(read_trace(path, count), scale, speed)
    description = f"{len(requests)} requests of {path.name}, {speed:g} times as fast"
    if scale != 1:
        description += f", lengths times {scale:g}"
    return Workload(requests, arrivals, description)


def _timed(load: Workload, rate: float | None, burstiness: float, seed: int) -> Workload:
    """``load`` with arrivals at ``rate``; without one it keeps its own."""
    from dataclasses import replace

    from selenite.eval.bench.workload import arrivals

    if rate is None:
        return replace(load, description=load.description + _arrival_words(load))
    times = arrivals(len(load.requests), rate, burstiness, seed)
    words = f", {rate:g}/s, burstiness {burstiness:g}"
    return replace(load, arrivals=times, description=load.description + words)


def _arrival_words(load: Workload) -> str:
    return ", at once" if not any(load.arrivals) else f", within {load.arrivals[-1]:.0f} s"


def _vocabulary(
    server: Endpoint, model: str, api: str, tokenizer: Path | None, vocab_size: int | None
) -> Vocabulary:
    """The user's tokenizer, else the server's, else ids of an assumed range."""
    from selenite.chat.tokenizer import Tokenizer
    from selenite.errors import ConfigError
    from selenite.eval.bench import prompts

    needs_text = api == "chat"
    if tokenizer is not None:
        return prompts.of_tokenizer(Tokenizer.load(tokenizer), needs_text, str(tokenizer))
    if vocab_size is not None and not needs_text:
        return prompts.of_range(vocab_size)
    if (found := prompts.of_server(server, model, needs_text)) is not None:
        return found
    if needs_text:
        raise ConfigError(f"{server.url}: has no /tokenize; for a chat, give --tokenizer DIR")
    return prompts.of_range(_ASSUMED_VOCABULARY)


def _object(text: str) -> dict[str, Any]:
    from selenite.errors import ConfigError

    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--extra-body {text}: not JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise ConfigError(f"--extra-body {text}: must be a JSON object")
    return parsed
