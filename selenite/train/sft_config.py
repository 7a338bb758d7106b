"""The config of fine-tuning on conversations: what ``selenite sft`` reads."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, model_validator

from selenite.config import Config
from selenite.data.prepare import DataConfig
from selenite.errors import ConfigError
from selenite.model.config import MobaConfig
from selenite.model.lora import LoRAConfig
from selenite.optim.build import OptimConfig
from selenite.optim.schedule import Schedule, ScheduleConfig
from selenite.optim.schedule import preset as schedule_preset
from selenite.train.pretrain_config import expanding
from selenite.train.run_config import FromModelConfig


class SftTrainConfig(FromModelConfig):
    """A run that goes on from a model. Conversations longer than ``seq_len`` are left out and
    counted; ``micro_batch_tokens`` are filled with whole ones."""

    attention: Literal["own", "full"] | MobaConfig = "own"
    """What rows read: what they do in the model that is taught, everything, or blocks
    (``model.moba`` of pre-training). The model that comes out says so."""
    template: Literal["own", "compact"] = "own"
    """The chat template: the model's own, or ``compact``, whose tool declarations take about half
    of the tokens. It is saved with the model, which is served with it."""
    samples: int = Field(default=2, ge=0)
    """Held-out conversations whose first turn of the assistant is shown at each
    ``sample_every``."""


class ChatPart(Config):
    """Conversations of a mixture: JSON lines in OpenAI's form (``data/chat_rows.py``)."""

    kind: Literal["chat"] = "chat"
    name: str
    weight: float = Field(gt=0)  # share of the tokens, relative to the other parts
    paths: tuple[str, ...] = Field(min_length=1)  # files or globs
    held_out: float = Field(default=0.02, ge=0, lt=1)  # share that is evaluated on, never learnt
    unused_tools: int | None = Field(default=None, ge=0)
    """The most tools beside the needed ones, drawn anew and shuffled each time; none: all, in their
    order."""
    together: int = Field(default=1, ge=1)
    """Rows of one group that are read after one list of tools, whose tokens are computed once."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.together > 1 and self.unused_tools is None:
            raise ValueError(
                f"part {self.name}: together={self.together} draws one list of tools for several "
                "rows; set unused_tools, too"
            )
        return self


class TextPart(Config):
    """Plain text of a mixture, all of which is learnt: it keeps what the model knew."""

    kind: Literal["text"] = "text"
    name: str
    weight: float = Field(gt=0)
    data: DataConfig  # its tokenizer is the model's, whatever it says
    window: int = Field(default=512, gt=0)  # tokens that are read at a time


Part = Annotated[ChatPart | TextPart, Discriminator("kind")]


class SftConfig(Config):
    """A fine-tuning run."""

    train: SftTrainConfig
    parts: tuple[Part, ...] = Field(min_length=1)
    optim: OptimConfig = OptimConfig()
    lora: LoRAConfig | None = None
    """Train adapters beside frozen weights; none: train all weights."""
    schedule: Annotated[ScheduleConfig, expanding(schedule_preset)] = ScheduleConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise ValueError(f"parts: {', '.join(names)}: give each a name of its own")
        for part in self.parts:
            if isinstance(part, TextPart) and part.window > self.train.seq_len:
                raise ValueError(
                    f"part {part.name}: window={part.window} exceeds train.seq_len="
                    f"{self.train.seq_len}; lower the first or raise the second"
                )
        if not any(isinstance(part, ChatPart) for part in self.parts):
            raise ValueError("parts: no conversations; give a part of kind chat, or pretrain")
        try:
            Schedule(self.schedule, self.train.num_steps)
        except ConfigError as error:
            raise ValueError(f"schedule: {error}") from error
        return self
