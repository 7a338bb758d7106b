"""What pre-training and fine-tuning have in common: next-token loss, MuonClip, router balancing.

The loss of a step is the mean over the trained targets of all its micro-batches. After the update
come QK-Clip (Kimi K2, section 2.1), with the largest attention logits of the step's forward
passes, and the routers' biases (DeepSeek-V3, section 2.1.2), with its expert loads. A model with
extra prediction layers gets their loss beside its own (``nextn.py``).

Letters: ``L`` layers (for loads: those with experts), extra prediction layers last, ``N`` heads,
``E`` experts, ``T`` tokens.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from selenite.chat.tokenizer import Tokenizer
from selenite.data.packing import MicroBatch
from selenite.model.accounting import (
    forward_backward_flops_per_token,
    keys_read,
    nextn_flops_per_token,
)
from selenite.model.lora import LoRAConfig, count_adapters
from selenite.model.transformer import ModelOutput, Transformer
from selenite.ops.attention_context import StatsRequest
from selenite.optim.balance import global_load, update_router_bias
from selenite.optim.build import OptimConfig, build_optimizer
from selenite.optim.qk_clip import MaxLogit, qk_clip
from selenite.optim.schedule import Schedule
from selenite.train.evaluate import bits_per_byte
from selenite.train.inputs import num_targets, sum_logprobs, to_inputs
from selenite.train.nextn import nextn_loss, num_depth_targets
from selenite.train.run_config import RunConfig
from selenite.train.task import Phase, Sample

logger = logging.getLogger(__name__)


class BatchSource(Protocol):
    """Endless micro-batches that can be resumed."""

    def __iter__(self) -> Iterator[MicroBatch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class LanguageModelTask(ABC):
    """A transformer on micro-batches of tokens. ``model`` is initialised; ``loader`` is at its
    beginning.

    With ``lora`` the model has these adapters, and they alone are trained. ``identity`` is what a
    checkpoint must agree with besides the model, the optimizer, the adapters and the seed.
    """

    def __init__(
        self,
        model: Transformer,
        loader: BatchSource,
        optim: OptimConfig,
        schedule: Schedule,
        train: RunConfig,
        lora: LoRAConfig | None,
        identity: Mapping[str, Any],
    ) -> None:
        self.model = model
        self.modules: dict[str, nn.Module] = {"model": model}
        self.phases = (
            Phase("train", build_optimizer(model, optim), schedule.factor, optim.grad_clip),
        )
        self.identity: dict[str, Any] = {
            "model": model.config.model_dump(mode="json"),
            "train.seed": train.seed,
            "optimizer": optim.name,
            "lora": None if lora is None else lora.model_dump(mode="json"),
            **identity,
        }
        self._loader = loader
        self._optim = optim
        self._train = train
        self._adapter_parameters = None if lora is None else count_adapters(model).active
        # With adapters the extra layers stay as they are.
        self._trained_depths = range(1, 1 + (len(model.nextn) if lora is None else 0))
        self._stats = StatsRequest(max_logit=optim.qk_clip_statistic)
        self._max_logit = MaxLogit()
        self._batch: list[MicroBatch] = []
        self._start_sums()

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The model's."""

    @abstractmethod
    def evaluate(self) -> Mapping[str, float]: ...

    @abstractmethod
    def samples(self) -> Sequence[Sample]: ...

    def next_batch(self) -> list[MicroBatch]:
        self._batch = list(islice(self._loader, self._train.micro_batches))
        self._start_sums()
        return self._batch

    def loss(self, phase: Phase, micro_batch: MicroBatch, batch: Sequence[MicroBatch]) -> Tensor:
        inputs = to_inputs(micro_batch, self._device, self._stats)
        output = self.model(
            inputs.tokens_T,
            inputs.context.positions_T,
            inputs.context,
            checkpoint=self._train.checkpoint_activations,
        )
        nats = -sum_logprobs(output.hidden_TD, self.model.head_weight, inputs).float()
        self._nats += nats.detach().cpu()
        loss = nats / sum(map(num_targets, batch))
        outputs = [output]
        if self._trained_depths:
            nextn = nextn_loss(
                self.model,
                output.hidden_TD,
                micro_batch,
                batch,
                inputs.context,
                self._train.checkpoint_activations,
            )
            self._nextn_loss += nextn.loss.detach().cpu()
            self._nextn_hits += nextn.num_hits.cpu()
            loss = loss + self._train.nextn_loss_weight * nextn.loss
            outputs += nextn.outputs
        self._record_statistics(outputs)
        return loss

    def after_update(self, phase: Phase, step: int) -> Mapping[str, float]:
        if step + 1 == self._train.switch_step:
            self._read_everything()
        tokens = sum(len(micro_batch.tokens_T) for micro_batch in self._batch)
        num_bytes = sum(micro_batch.num_bytes for micro_batch in self._batch)
        metrics = {"tokens": float(tokens), "flops": self._flops(tokens)}
        if num_bytes:  # what is learnt can be special tokens alone
            metrics["bits_per_byte"] = bits_per_byte(float(self._nats), num_bytes)
        return metrics | self._nextn_metrics() | self._clip() | self._balance()

    def state_dict(self) -> dict[str, Any]:
        full = self.model.config.moba is None
        return {"loader": self._loader.state_dict(), "reads_everything": full}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loader.load_state_dict(state["loader"])
        if state.get("reads_everything"):  # older checkpoints do not say
            self._read_everything()

    def close(self) -> None:
        """Ends the loader's worker."""
        self._loader.close()

    @property
    def _device(self) -> torch.device:
        return self.model.embed.weight.device

    def _flops(self, tokens: int) -> float:
        """Model FLOPs of the step, forward and backward: attention over what each token saw."""
        config = self.model.config
        keys = sum(keys_read(config, micro_batch.positions_T) for micro_batch in self._batch)
        mean_context = keys / tokens
        adapters = self._adapter_parameters
        a_token = forward_backward_flops_per_token(config, mean_context, adapters)
        if adapters is None:
            seen = sum(int((micro_batch.positions_T + 1).sum()) for micro_batch in self._batch)
            a_token += 3.0 * nextn_flops_per_token(config, seen / tokens)  # they read everything
        return tokens * a_token

    def _read_everything(self) -> None:
        """From here on no row chooses blocks; the weights are the same."""
        if self.model.config.moba is not None:
            logger.info("attention is full from here on")
            self.model.config = self.model.config.model_copy(update={"moba": None})

    def _start_sums(self) -> None:
        """Sums over the micro-batches of a step."""
        self._load_LE: Tensor | None = None
        self._nats = torch.zeros((), dtype=torch.float64)
        self._nextn_loss = torch.zeros((), dtype=torch.float64)
        self._nextn_hits = torch.zeros((), dtype=torch.int64)

    def _record_statistics(self, outputs: Sequence[ModelOutput]) -> None:
        """Largest logits and loads of a micro-batch, for after the update."""
        self._max_logit.update(
            torch.cat([out.max_logit_LN for out in outputs if out.max_logit_LN is not None])
        )
        loads = [out.load_LE for out in outputs if out.load_LE is not None]
        if loads:
            load_LE = torch.cat(loads)
            self._load_LE = load_LE if self._load_LE is None else self._load_LE + load_LE

    def _nextn_metrics(self) -> dict[str, float]:
        depths = self._trained_depths
        if not depths:
            return {}
        targets = sum(num_depth_targets(self._batch, depth) for depth in depths)
        return {
            "nextn_loss": float(self._nextn_loss),
            "nextn_accuracy": int(self._nextn_hits) / max(1, targets),
        }

    def _clip(self) -> dict[str, float]:
        max_logit_LN = self._max_logit.take()
        if self._optim.qk_clip_tau is None:
            return {"max_logit": float(max_logit_LN.max())}
        report = qk_clip(self.model, max_logit_LN, self._optim.qk_clip_tau, self._optim.qk_clip_gqa)
        return {"max_logit": report.max_logit, "clipped_heads": float(report.num_clipped)}

    @torch.no_grad()
    def _balance(self) -> dict[str, float]:
        if self._load_LE is None:
            return {}
        load_LE = global_load(self._load_LE)
        routers = [buffer for name, buffer in self.model.named_buffers() if "router.bias" in name]
        routers = routers[: len(load_LE)]  # extra layers come last, and with adapters have no load
        for bias_E, load_E in zip(routers, load_LE, strict=True):
            update_router_bias(bias_E, load_E, self._optim.router_bias_speed)
        # Of the layer that is balanced worst: 1 is perfect balance.
        worst = (load_LE.amax(-1) / load_LE.float().mean(-1)).max()
        return {"load_max_over_mean": float(worst)}
