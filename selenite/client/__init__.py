"""The other side of the OpenAI API: what speaks to a server, ours or another, by HTTP alone.

``selenite chat`` (``chat.py``), ``selenite run-batch`` (``batch.py``) and the sending half of
``selenite bench serve`` (``exchange.py``). Nothing here knows a model or an engine; where a model
directory is given, ``child_server.py`` starts ``selenite serve`` and speaks to that.
"""

from selenite.errors import MissingExtraError

try:
    import httpx  # noqa: F401 - every file of this folder needs it
except ModuleNotFoundError as error:
    raise MissingExtraError("httpx", "serve", "speaking to an endpoint") from error
