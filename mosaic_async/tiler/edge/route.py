"""Routes that check a request before FastAPI reads its parameters, and before anything works for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from mosaic_async.tiler.edge.gate import enter_lane
from mosaic_async.tiler.edge.parameters import check_names, check_path, check_values

_OF_EVERY_ROUTE = frozenset({"access_token"})

IsPlain = Callable[[Request], Awaitable[bool]]
"""Returns whether a checked request is plain; raises UsageError if it is too dear."""


def checked_route(is_plain: IsPlain, *, extra: frozenset[str] = frozenset()) -> type[APIRoute]:
    """Return a class of routes for `APIRouter(route_class=...)`.

    Args:
        is_plain: prices a request.
        extra: parameters that the routes accept beside those they declare.
    """

    class CheckedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            known = frozenset(_names_of(self.dependant)) | extra | _OF_EVERY_ROUTE

            async def checked(request: Request) -> Response:
                check_path(request.path_params)
                check_names(request.query_params, known)
                check_values(request.query_params)
                await enter_lane(is_plain=await is_plain(request))
                return await handle(request)

            return checked

    return CheckedRoute


def _names_of(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        yield parameter.alias
    for inner in dependant.dependencies:
        yield from _names_of(inner)
