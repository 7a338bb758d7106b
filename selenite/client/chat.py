"""A conversation in the terminal: one line asks, the answer is written as it arrives.

    selenite chat --url http://127.0.0.1:8000

``Conversation`` talks to the server and remembers the turns; ``Terminal`` reads lines and shows
what comes. Without a terminal, lines are read from standard input, so a script can talk too.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from selenite.client.endpoint import Endpoint, error_message
from selenite.client.pieces import CallPiece, Piece, parse_piece
from selenite.client.sse import DONE, SseParser
from selenite.errors import EndpointError

HELP = """\
/reset         forget the conversation, keep the system message
/system TEXT   set the system message and forget the conversation; without TEXT, remove it
/help          this list
/exit          leave; so does the end of input
Ctrl-C         stop the answer"""


@dataclass
class Reply:
    """The assistant's turn, as far as it has come."""

    content: str = ""
    calls: dict[int, CallPiece] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        """Appends what a piece brings."""
        self.content += piece.content
        for part in piece.calls:
            so_far = self.calls.get(part.index, CallPiece(part.index))
            self.calls[part.index] = CallPiece(
                index=part.index,
                id=so_far.id or part.id,
                name=so_far.name or part.name,
                arguments=so_far.arguments + part.arguments,
            )

    def message(self) -> dict[str, Any]:
        """As the next request sends it back."""
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in self.calls.values()
        ]
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        return {**message, "tool_calls": calls} if calls else message


class Conversation:
    """The turns so far, and the server that continues them.

    ``options`` are further fields of every request: ``temperature``, ``max_tokens``, ``tools``.
    """

    def __init__(self, endpoint: Endpoint, model: str, options: dict[str, Any]) -> None:
        self.system = ""
        self.turns: list[dict[str, Any]] = []
        self._endpoint = endpoint
        self._fields = {"model": model, "stream": True, **options}
        self._client = endpoint.open()

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def ask(self, messages: Sequence[dict[str, Any]]) -> Generator[Piece]:
        """Adds ``messages`` and the model's answer to the turns, piece by piece.

        Closing the iterator closes the connection, which stops the server; what had come stays, and
        where nothing had, ``messages`` do not stay either. Calls that are not whole do not stay.
        Raises ``EndpointError``, with the turns as they were.
        """
        reply, is_whole = Reply(), False
        before = len(self.turns)
        self.turns += messages
        try:
            with contextlib.closing(self._stream()) as pieces:
                for piece in pieces:
                    reply.add(piece)
                    yield piece
            is_whole = True
        except EndpointError:
            reply = Reply()
            raise
        finally:
            if not is_whole:
                reply.calls.clear()
            if reply.content or reply.calls:
                self.turns.append(reply.message())
            else:
                del self.turns[before:]

    def _stream(self) -> Generator[Piece]:
        """Pieces of an answer to the turns; raises ``EndpointError`` when it does not end well."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {**self._fields, "messages": system + self.turns}
        url = self._endpoint.path("/v1/chat/completions")
        parser, is_finished = SseParser(), False
        try:
            with self._client.stream("POST", url, json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise EndpointError(error_message(response))
                for received in response.iter_bytes():
                    for data in parser.feed(received):
                        if data == DONE:
                            return
                        piece = parse_piece(data)
                        if piece.error is not None:
                            raise EndpointError(f"the server failed: {piece.error}")
                        is_finished = is_finished or piece.finish_reason is not None
                        yield piece
        except httpx.RequestError as error:
            raise EndpointError(f"{url}: {error or type(error).__name__}") from error
        except ValueError as error:
            raise EndpointError(f"{url}: {error}") from error
        if not is_finished:
            raise EndpointError(f"{url}: the answer broke off")


class Terminal:
    """Reads what the user says, shows what the model answers, obeys what starts with a slash."""

    def __init__(self, conversation: Conversation, console: Console) -> None:
        self._conversation = conversation
        self._console = console
        self._is_terminal = sys.stdin.isatty()
        self.has_failed = False  # an answer did not come, or not whole

    def run(self) -> None:
        """Until ``/exit`` or the end of input."""
        if self._is_terminal:
            with contextlib.suppress(ModuleNotFoundError):  # not on every system
                import readline  # noqa: F401 - gives input() its history and editing
        while (line := self._read("> ")) is not None:
            command, _, rest = line.strip().partition(" ")
            match command:
                case "":
                    continue
                case "/exit":
                    return
                case "/reset":
                    self._conversation.turns.clear()
                    self._note("the conversation is forgotten")
                case "/system":
                    self._conversation.system = rest.strip()
                    self._conversation.turns.clear()
                    self._note("system message set" if rest.strip() else "no system message")
                case "/help":
                    self._note(HELP)
                case _ if command.startswith("/"):
                    self._note(f"{command} is no command; /help lists them")
                case _:
                    self._turn(line)

    def _turn(self, line: str) -> None:
        """Asks, and while the model calls tools, asks the user for what they give.

        A turn that ends before its calls have their results is forgotten: no model takes it.
        """
        turns = self._conversation.turns
        before = len(turns)
        messages: list[dict[str, Any]] | None = [{"role": "user", "content": line}]
        while messages:
            calls = self._answer(messages)
            messages = self._results(calls)
        if turns and "tool_calls" in turns[-1]:
            del turns[before:]

    def _answer(self, messages: Sequence[dict[str, Any]]) -> list[CallPiece]:
        """Shows the answer; gives the calls that it makes, none when it was stopped."""
        pieces = self._conversation.ask(messages)
        shown = Reply()
        try:
            for piece in pieces:
                self._show(piece, shown)
                shown.add(piece)
        except KeyboardInterrupt:
            pieces.close()
            self._console.print()
            self._note("stopped")
            return []
        except EndpointError as error:
            self._console.print(Text(f"error: {error}", style="red"))
            self.has_failed = True
            return []
        self._console.print()
        return list(shown.calls.values())

    def _results(self, calls: Sequence[CallPiece]) -> list[dict[str, Any]] | None:
        """What the user types as the tools' results; ``None`` at the end of input."""
        messages = []
        for call in calls:
            result = self._read(f"result of {call.name}> ")
            if result is None:
                return None
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        return messages

    def _show(self, piece: Piece, before: Reply) -> None:
        self._write(piece.reasoning, "dim italic")
        self._write(piece.content, "")
        for part in piece.calls:
            if part.index not in before.calls:
                self._write(f"\n[{part.name}] ", "bold cyan")
            self._write(part.arguments, "cyan")

    def _write(self, text: str, style: str) -> None:
        if text:
            self._console.print(Text(text, style=style), end="", soft_wrap=True)

    def _note(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))

    def _read(self, prompt: str) -> str | None:
        """A line without its end; ``None`` at the end of input. A Ctrl-C here takes it back."""
        while True:
            try:
                if self._is_terminal:
                    return input(prompt)
                line = sys.stdin.readline()
                return line.rstrip("\r\n") if line else None
            except EOFError:
                self._console.print()
                return None
            except KeyboardInterrupt:
                self._console.print()
                self._note("/exit or Ctrl-D leaves")
