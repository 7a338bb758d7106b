"""Every error that a user can cause, in one tree.

Each message gives the value, the rule it broke and what to do about it. What only a bug can
cause is an ``assert`` where it happens. The command line prints the message of a
``SeleniteError`` without a traceback and exits with its ``exit_code``.

    SeleniteError                 exit code 1
    ├── ConfigError               2  a key or value of a config (also a ValueError)
    ├── DataError                 3  a source, corpus or shard that cannot be read
    ├── TokenizerError            3  a tokenizer that is missing, broken or does not match
    ├── ConversationError         3  messages or tools that break the rules of a chat
    │   └── UnstableTemplateError 3  a template that writes earlier turns anew when one is added
    ├── CheckpointError           4  a checkpoint that is incomplete, altered or of another model
    ├── NonFiniteError            5  a loss or gradient that is NaN or infinite
    ├── OutOfMemoryError          6  carries the memory plan and the dial to turn
    ├── StorageError              7  a disk that is full or cannot be written
    ├── UnsupportedError          8  this machine cannot do what was asked, and why
    ├── MissingExtraError         9  an optional dependency is not installed (also an ImportError)
    ├── OverloadedError          10  a server's queue is full; carries when to come again
    ├── UnavailableError         11  a server that is loading, draining or broken
    └── EndpointError            12  a server that we asked refused, failed or went away
"""

from __future__ import annotations


class SeleniteError(Exception):
    """Base of all errors that a user can cause and mend."""

    exit_code = 1


class ConfigError(SeleniteError, ValueError):
    """A config key is unknown, a value breaks its rule, or two values contradict each other."""

    exit_code = 2


class ContextLengthError(ConfigError):
    """A prompt and what may follow it are longer than the model's context."""


class DataError(SeleniteError, ValueError):
    """A data source, corpus or token shard is missing, empty or malformed."""

    exit_code = 3


class TokenizerError(SeleniteError, ValueError):
    """A tokenizer is missing, malformed, or is not the one the tokens or model were made with."""

    exit_code = 3


class ConversationError(SeleniteError, ValueError):
    """Messages or tools break the rules of a chat."""

    exit_code = 3


class UnstableTemplateError(ConversationError):
    """The template writes earlier turns differently once another follows, so none can be added."""


class CheckpointError(SeleniteError, ValueError):
    """A checkpoint is incomplete, fails its checksum, or belongs to another model."""

    exit_code = 4


class NonFiniteError(SeleniteError, ArithmeticError):
    """A loss or gradient is NaN or infinite; nothing was updated with it."""

    exit_code = 5


class OutOfMemoryError(SeleniteError, MemoryError):
    """Memory ran out; the message carries the memory plan and the setting to change."""

    exit_code = 6


class StorageError(SeleniteError, OSError):
    """A disk is full or a path cannot be written; what was saved before is intact."""

    exit_code = 7


class UnsupportedError(SeleniteError, RuntimeError):
    """This machine or build cannot do what was asked; the message says why."""

    exit_code = 8


class MissingExtraError(SeleniteError, ImportError):
    """An optional dependency is missing; the message names the extra that brings it."""

    exit_code = 9

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {module!r}, which is not installed; "
            f"install it with: pip install 'selenite[{extra}]'"
        )


class OverloadedError(SeleniteError, RuntimeError):
    """A server's queue is full."""

    exit_code = 10

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds after which there may be room


class UnavailableError(SeleniteError, RuntimeError):
    """A server that takes no requests: it is loading, draining, or its engine failed."""

    exit_code = 11


class EndpointError(SeleniteError, RuntimeError):
    """A server that we asked refused, failed, went away, or answers something else."""

    exit_code = 12
