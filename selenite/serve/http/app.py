"""The app: which endpoint does what."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from selenite.serve.http import errors
from selenite.serve.http.chat import ChatBody, ChatCompletion, ChatWriter
from selenite.serve.http.door import Door
from selenite.serve.http.guard import Guard
from selenite.serve.http.protocol import ErrorResponse
from selenite.serve.http.stream import EventStream, unless_gone

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
    app = FastAPI(title="Selenite", version=version("selenite"))
    app.state.door = door
    app.include_router(router)
    errors.install(app)
    app.add_middleware(
        Guard, api_keys=door.config.api_keys, max_body_bytes=door.config.max_body_bytes
    )
    return app


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


DoorOf = Annotated[Door, Depends(_door)]


def as_json(body: BaseModel) -> Response:
    """An answer in one piece."""
    return Response(body.model_dump_json(by_alias=True), media_type="application/json")


@router.get("/health")
async def health(door: DoorOf) -> Response:
    """200 while requests are taken, 503 otherwise."""
    status = 200 if door.state == "ready" else 503
    return JSONResponse({"status": door.state}, status)


@router.post("/v1/chat/completions", response_model=ChatCompletion)
async def chat_completions(body: ChatBody, door: DoorOf, request: Request) -> Any:
    """Answers a conversation."""
    service = door.service(body.model)
    generation = await unless_gone(request.receive, service.chat(body.request()))
    writer = ChatWriter(body, generation, service.loaded.name, service.tokenizer)
    if body.stream:
        return EventStream(generation, writer.pieces(), door.config.keep_alive)
    async with generation:
        return as_json(await unless_gone(request.receive, writer.whole()))
