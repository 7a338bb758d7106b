"""``LLM``: a model directory, ready to write text.

    from selenite import LLM, SamplingParams
    llm = LLM("runs/nano")
    print(llm.generate("def fibonacci(n):", SamplingParams(max_tokens=64))[0].text)

The library's face, beside ``selenite generate``: tokenizer, model and cached decoder in one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selenite import runtime
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError, OutOfMemoryError
from selenite.model.accounting import cache_bytes_per_token, count_parameters
from selenite.model.decode import decode
from selenite.model.hf_adapter import check_tokenizer, load_pretrained, read_config
from selenite.model.lora import merge_lora
from selenite.model.lora_files import load_lora
from selenite.types import Completion, SamplingParams

Prompt = str | Sequence[int]


class LLM:
    """A model and its tokenizer, on the plain cached decoder.

    Args:
        path: a model directory (``config.json``, safetensors, tokenizer), such as a finished run
            of ``selenite pretrain``.
        dtype: ``auto``, ``bfloat16`` or ``float32``.
        batch_invariant: results do not depend on what is generated beside them, bit for bit;
            must be asked for before anything else has computed in this process.
        adapter: a directory with a LoRA adapter of this model, such as ``adapter`` in the run that
            trained it; merged into the weights.

    Raises:
        CheckpointError: a directory is incomplete or damaged, or the adapter is of another model.
        TokenizerError: the tokenizer is missing, or not the model's.
    """

    def __init__(
        self,
        path: str | Path,
        dtype: runtime.DTypeName = "auto",
        batch_invariant: bool = False,
        adapter: str | Path | None = None,
    ) -> None:
        if batch_invariant:
            runtime.enable_batch_invariant()
        runtime.apply_threads()
        device = runtime.choose_device()
        self.dtype = runtime.choose_dtype(dtype, device.value)
        directory = Path(path)
        try:
            self.model = load_pretrained(directory)
            if adapter is not None:
                _check_not_merged(directory, Path(adapter))
                merge_lora(load_lora(self.model, Path(adapter)))
            self.model.to(device.value)
            self.model.cast(runtime.torch_dtype(self.dtype.value))
        except (MemoryError, RuntimeError) as error:
            if not runtime.is_out_of_memory(error):
                raise
            count = count_parameters(read_config(directory)).total
            raise OutOfMemoryError(
                f"{directory}: memory ran out while the model was loaded; loading takes "
                f"{runtime.mebibytes(4 * count)}, 4 bytes for each of {count:,} parameters "
                f"({error})"
            ) from error
        self.tokenizer = Tokenizer.load(directory)
        check_tokenizer(directory, self.tokenizer)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Completion]:
        """Continues each prompt, all in one batch.

        Args:
            prompts: text (a document's beginning: the start token is put before it), token ids
                (taken as they are), or a list of either.
            sampling_params: one for all prompts, or one for each.

        Raises:
            ConfigError: a prompt too long for the model, or as many parameters as prompts are
                missing.
            OutOfMemoryError: memory ran out; with what the weights and the cache take.
        """
        batch = _as_batch(prompts)
        params = _params_for(batch, sampling_params)
        prompt_ids = [self._encode(prompt) for prompt in batch]
        ends = frozenset({self.tokenizer.eos_id})
        try:
            results = decode(self.model, prompt_ids, params, ends)
        except (MemoryError, RuntimeError) as error:
            if not runtime.is_out_of_memory(error):
                raise
            raise self._out_of_memory(prompt_ids, params, error) from error
        completions = []
        for ids, result in zip(prompt_ids, results, strict=True):
            assert result.finish_reason is not None
            shown = [token for token in result.token_ids if token not in ends]
            completions.append(
                Completion(
                    prompt_token_ids=ids,
                    token_ids=result.token_ids,
                    text=self.tokenizer.decode(shown),
                    logprobs=result.logprobs,
                    finish_reason=result.finish_reason,
                )
            )
        return completions

    def _out_of_memory(
        self, prompt_ids: list[list[int]], params: list[SamplingParams], error: Exception
    ) -> OutOfMemoryError:
        """With what the weights and the cache of this call take."""
        weights = sum(tensor.nbytes for tensor in self.model.parameters())
        longest = max(
            len(ids) + own.max_tokens for ids, own in zip(prompt_ids, params, strict=True)
        )
        width = self.model.compute_dtype.itemsize
        a_token = cache_bytes_per_token(self.model.config, "expanded", width)
        cache = runtime.mebibytes(len(prompt_ids) * longest * a_token)
        return OutOfMemoryError(
            f"memory ran out in generate: the weights take {runtime.mebibytes(weights)}, and the "
            f"cache {cache} = {len(prompt_ids)} prompts x {longest} tokens (the longest prompt and "
            f"its max_tokens) x {a_token:,} bytes; give fewer prompts at once, or lower max_tokens "
            f"({error})"
        )

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer.prompt_ids(prompt)
        vocab_size = self.model.config.vocab_size
        wrong = [token for token in prompt if not 0 <= token < vocab_size]
        if wrong:
            raise ConfigError(f"token id {wrong[0]} is not in the vocabulary of {vocab_size}")
        return list(prompt)


def _check_not_merged(directory: Path, adapter: Path) -> None:
    """A run with adapters leaves its merged model and, in a folder of it, what was merged."""
    if adapter.resolve().parent == directory.resolve():
        raise ConfigError(
            f"{adapter} is merged into {directory} already; load the model without it, or give the "
            "model that the adapter was trained on"
        )


def _as_batch(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]


def _params_for(
    batch: list[Prompt], params: SamplingParams | Sequence[SamplingParams] | None
) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * len(batch)
    if len(params) != len(batch):
        raise ConfigError(
            f"{len(params)} sampling parameters for {len(batch)} prompts: give one, or one each"
        )
    return list(params)
