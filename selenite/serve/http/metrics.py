"""``/metrics``: Prometheus, under the names that vLLM's dashboards and autoscalers know."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from selenite.serve.generation import Choice
from selenite.serve.service import Service
from selenite.types import FinishReason

Metric = GaugeMetricFamily | CounterMetricFamily | InfoMetricFamily

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


class Metrics:
    """Counts what a service finishes, and reads its engine when asked."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self._name = service.loaded.name
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens written.")
        self._success = Counter(
            "vllm:request_success",
            "Completions by how they ended.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self._first_token = self._seconds("time_to_first_token_seconds", "Arrival to first token.")
        self._inter_token = self._seconds("inter_token_latency_seconds", "Between two tokens.")
        self._e2e = self._seconds("e2e_request_latency_seconds", "Arrival to last token.")
        self._queue = self._seconds("request_queue_time_seconds", "Arrival to first step.")
        self._prefill = self._seconds("request_prefill_time_seconds", "First step to first token.")
        self._decode = self._seconds("request_decode_time_seconds", "First to last token.")
        self._prompt_sizes = self._tokens("request_prompt_tokens", "Tokens of a prompt.")
        self._written_sizes = self._tokens("request_generation_tokens", "Tokens of a completion.")
        self.registry.register(_EngineState(service))
        service.listeners.append(self.observe)

    def text(self) -> bytes:
        """All metrics in Prometheus' format."""
        return generate_latest(self.registry)

    def observe(self, choice: Choice) -> None:
        """A completion that ended or was left; one that was refused is none."""
        request, times = choice.request, choice.token_times
        if not request.is_queued:
            return
        reason = request.finish_reason or FinishReason.ABORT  # left: the engine ends it soon
        self._success.labels(self._name, reason.value).inc()
        self._prompt_tokens.inc(len(request.prompt))
        self._generation_tokens.inc(len(times))
        self._prompt_sizes.observe(len(request.prompt))
        self._written_sizes.observe(len(times))
        started = request.first_scheduled
        if started is None:
            return
        self._queue.observe(started - request.arrival)
        if not times:
            return
        self._first_token.observe(times[0] - request.arrival)
        self._prefill.observe(times[0] - started)
        self._decode.observe(times[-1] - times[0])
        self._e2e.observe(times[-1] - request.arrival)
        for earlier, later in pairwise(list(times)):
            self._inter_token.observe(later - earlier)

    def _counter(self, name: str, text: str) -> Counter:
        counter = Counter(f"vllm:{name}", text, ["model_name"], registry=self.registry)
        return counter.labels(self._name)

    def _seconds(self, name: str, text: str) -> Histogram:
        return self._histogram(name, text, _SECONDS)

    def _tokens(self, name: str, text: str) -> Histogram:
        return self._histogram(name, text, _TOKENS)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(
            f"vllm:{name}", text, ["model_name"], registry=self.registry, buckets=buckets
        )
        return histogram.labels(self._name)


class _EngineState(Collector):
    """What the engine is at, read at each scrape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        engine, name = self._service.engine, self._service.loaded.name
        scheduler, prefix, load = engine.scheduler, engine.prefix, self._service.load()
        gauges = {
            "num_requests_running": ("Completions that run.", load.running),
            "num_requests_waiting": ("Completions that wait.", load.waiting),
            "kv_cache_usage_perc": (
                "Share of the cache's pages that requests hold.",
                load.pages_in_use / load.pages,
            ),
        }
        for metric, (text, value) in gauges.items():
            family = GaugeMetricFamily(f"vllm:{metric}", text, labels=["model_name"])
            family.add_metric([name], value)
            yield family
        counters = {
            "num_preemptions": ("Times that a request lost its pages.", scheduler.num_preemptions),
            "prefix_cache_queries": ("Tokens looked up in the cache.", prefix.queries),
            "prefix_cache_hits": ("Tokens found in the cache.", prefix.hits),
        }
        for metric, (text, value) in counters.items():
            counter = CounterMetricFamily(f"vllm:{metric}", text, labels=["model_name"])
            counter.add_metric([name], value)
            yield counter
        sizes = {"block_size": str(engine.pool.page_size), "num_gpu_blocks": str(load.pages)}
        yield InfoMetricFamily("vllm:cache_config", "Sizes of the cache.", sizes)
