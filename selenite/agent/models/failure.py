"""Why an endpoint gave nothing usable: each reason has a name that a pipeline can count."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from selenite.client.pieces import Usage
from selenite.errors import EndpointError

if TYPE_CHECKING:
    from selenite.agent.models.completion import Completion


class Reason(StrEnum):
    """What went wrong with one reply."""

    # asked again, after a pause
    CONNECTION = "connection"  # none, or it broke
    TIMEOUT = "timeout"  # no whole answer within the time for one request
    RATE_LIMITED = "rate_limited"  # status 429
    SERVER_ERROR = "server_error"  # status 5xx, or an error object in an answer of status 200
    MALFORMED = "malformed"  # a good status, and a body that is no completion
    EMPTY = "empty"  # no choice, or one with neither text nor calls
    # told to the model, and asked again
    NOT_JSON = "not_json"  # no JSON object in the text, or a broken one
    NOT_OF_SCHEMA = "not_of_schema"  # an object that the schema does not allow
    WRONG_CALL = "wrong_call"  # a tool that was not offered, arguments that do not fit, no call
    TRUNCATED = "truncated"  # cut at the token limit, and of no use so (with no text: final)
    # final
    REFUSED = "refused"  # any other status: the request, the key or the address is wrong
    TOO_LONG = "too_long"  # the prompt and the reply do not fit into the model's context
    DECLINED = "declined"  # the endpoint's filter, or the model's refusal
    UNCHECKABLE = "uncheckable"  # the schema cannot be applied: see chat.schema.CallFault


RETRIED = frozenset(
    {
        *(Reason.CONNECTION, Reason.TIMEOUT, Reason.RATE_LIMITED),
        *(Reason.SERVER_ERROR, Reason.MALFORMED, Reason.EMPTY),
    }
)
"""The same request may go better later."""

OF_ENDPOINT = RETRIED | {Reason.REFUSED}
"""Nothing is wrong with the reply: there is none."""

REPAIRED = frozenset(
    {Reason.NOT_JSON, Reason.NOT_OF_SCHEMA, Reason.WRONG_CALL, Reason.TRUNCATED},
)
"""The model may do better when it is told."""


@dataclass(frozen=True)
class Fault:
    """One reply that is of no use, or one that never came."""

    reason: Reason
    detail: str  # for people, and of REPAIRED reasons for the model; never has the key
    retry_after: float | None = None  # seconds that the endpoint asks us to wait; None: not said
    usage: Usage | None = None  # tokens that were spent all the same; None: not said


class ModelError(EndpointError):
    """A call that ended without a usable reply, after all retries and repairs."""

    def __init__(self, name: str, fault: Fault, completion: Completion | None = None) -> None:
        super().__init__(f"{name}: {fault.reason}: {fault.detail}")
        self.reason = fault.reason
        self.detail = fault.detail
        # The last reply, tools named as the endpoint has them; None: none that can be read came.
        self.completion = completion
