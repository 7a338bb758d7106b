"""The app: which endpoint does what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from importlib.metadata import version
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST as METRICS_TYPE
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from selenite.serve.generation import Generation
from selenite.serve.http import admin, errors, page_files
from selenite.serve.http.chat import ChatBody, ChatCompletion, ChatWriter
from selenite.serve.http.completions import Completion, CompletionBody, CompletionWriter
from selenite.serve.http.door import Door, DoorOf
from selenite.serve.http.embeddings import EmbeddingBody, Embeddings
from selenite.serve.http.facts import (
    ModelEntry,
    ModelList,
    RequestList,
    ServerLoad,
    ServerStats,
    Version,
    model_entry,
    model_list,
    request_list,
    server_load,
    server_stats,
)
from selenite.serve.http.generate import GenerateBody, Generated, GenerateWriter
from selenite.serve.http.guard import Guard
from selenite.serve.http.protocol import ErrorResponse, SamplingFields
from selenite.serve.http.response_items import ResponseObject, ResponseWriter
from selenite.serve.http.responses import ResponsesBody
from selenite.serve.http.stream import EventStream, unless_gone
from selenite.serve.http.tokens import (
    DetokenizeBody,
    Detokenized,
    TokenizeBody,
    Tokenized,
)

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 404, 408, 413, 429, 500, 503)
}


class _JsonRequest(Request):
    """Parses bodies strictly: no NaN, no broken Unicode, bounded depth."""

    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_JsonRequest(request.scope, request.receive))

        return handle


router = APIRouter(route_class=_Route, responses=_ERRORS)


def create_app(door: Door) -> FastAPI:
    """The app of a server; it answers at once, with 503 until the door's service is there."""
    # FastAPI's own pages of documentation would load their code from elsewhere.
    app = FastAPI(title="Selenite", version=version("selenite"), docs_url=None, redoc_url=None)
    app.state.door = door
    app.include_router(router)
    app.include_router(page_files.router)
    if door.config.admin:
        app.include_router(admin.router, responses=_ERRORS | {403: {"model": ErrorResponse}})
    errors.install(app)
    app.add_middleware(
        Guard,
        api_keys=door.config.api_keys,
        max_body_bytes=door.config.max_body_bytes,
        page_paths=page_files.PATHS,
    )
    return app


def as_json(body: BaseModel) -> Response:
    """An answer in one piece."""
    return Response(body.model_dump_json(by_alias=True), media_type="application/json")


@router.get("/health")
async def health(door: DoorOf) -> Response:
    """200 while requests are taken, 503 otherwise."""
    status = 200 if door.state == "ready" else 503
    return JSONResponse({"status": door.state}, status)


@router.get("/v1/models", response_model=ModelList)
async def models(door: DoorOf) -> ModelList:
    """The model that is served, and its adapters."""
    return model_list(door.service())


@router.get("/v1/models/{name:path}", response_model=ModelEntry)
async def model(name: str, door: DoorOf) -> ModelEntry:
    """One model."""
    return model_entry(door.service(name), name)


@router.get("/version", response_model=Version)
async def show_version() -> Version:
    """Of the server."""
    return Version(version=version("selenite"))


@router.get("/load", response_model=ServerLoad)
async def load(door: DoorOf) -> ServerLoad:
    """What the server has to do now."""
    return server_load(door.service().load())


@router.get("/stats", response_model=ServerStats)
async def stats(door: DoorOf) -> ServerStats:
    """Gauges and counters, as the web page's panel shows them."""
    return server_stats(door.service())


@router.get("/requests", response_model=RequestList)
async def requests(door: DoorOf) -> RequestList:
    """When the last requests were queued, prefilled and decoded."""
    return request_list(door.service())


@router.get("/metrics")
async def metrics(door: DoorOf) -> Response:
    """Prometheus."""
    return Response(door.metrics().text(), media_type=METRICS_TYPE)


@router.post("/v1/chat/completions", response_model=ChatCompletion)
async def chat_completions(body: ChatBody, door: DoorOf, request: Request) -> Any:
    """Answers a conversation."""
    service = door.service(body.model)
    generation = await unless_gone(request.receive, service.chat(body.request()))
    return await _answer(request, body, generation, ChatWriter(body, generation, service))


@router.post("/v1/completions", response_model=Completion)
async def completions(body: CompletionBody, door: DoorOf, request: Request) -> Any:
    """Continues texts."""
    service = door.service(body.model)
    generation = await unless_gone(request.receive, service.complete(body.request()))
    return await _answer(request, body, generation, CompletionWriter(body, generation, service))


@router.post("/v1/responses", response_model=ResponseObject)
async def responses(body: ResponsesBody, door: DoorOf, request: Request) -> Any:
    """Answers a conversation, in OpenAI's newer shape."""
    service = door.service(body.model)
    generation = await unless_gone(request.receive, service.chat(body.request()))
    return await _answer(request, body, generation, ResponseWriter(body, generation, service))


@router.post("/generate", response_model=Generated)
async def generate(body: GenerateBody, door: DoorOf, request: Request) -> Any:
    """Continues token ids with token ids."""
    service = door.service(body.model)
    generation = await unless_gone(request.receive, service.complete(body.request()))
    return await _answer(request, body, generation, GenerateWriter(body, generation))


@router.post("/v1/embeddings", response_model=Embeddings)
async def embeddings(body: EmbeddingBody, door: DoorOf, request: Request) -> Any:
    """Vectors of texts."""
    service = door.service(body.model)
    return as_json(await unless_gone(request.receive, body.response(service)))


@router.post("/tokenize", response_model=Tokenized)
async def tokenize(body: TokenizeBody, door: DoorOf) -> Any:
    """A text, or a conversation, as token ids."""
    service = door.service(body.model)
    ids = await asyncio.to_thread(body.ids, service)
    return as_json(Tokenized(count=len(ids), max_model_len=service.max_tokens, tokens=ids))


@router.post("/detokenize", response_model=Detokenized)
async def detokenize(body: DetokenizeBody, door: DoorOf) -> Any:
    """Token ids as text."""
    text = await asyncio.to_thread(body.text, door.service(body.model))
    return as_json(Detokenized(prompt=text))


class Writer(Protocol):
    """Writes a generation in the shape of one endpoint."""

    async def whole(self) -> BaseModel: ...
    def pieces(self) -> AsyncIterator[bytes]: ...


async def _answer(
    request: Request, body: SamplingFields, generation: Generation, writer: Writer
) -> Response:
    """In one piece, or as a stream."""
    door: Door = request.app.state.door
    if body.stream:
        return EventStream(generation, writer.pieces(), door.config.keep_alive)
    async with generation:
        return as_json(await unless_gone(request.receive, writer.whole()))
