"""What clients see: the addresses of a model server, with limits, short errors, a log and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from microseg.errors import counted
from microseg.logs import log_event
from microseg.serving.front.body import check_body
from microseg.serving.front.follower import Follower
from microseg.serving.front.metrics import CONTENT_TYPE, Metrics
from microseg.serving.front.options import FrontOptions
from microseg.serving.front.refusals import RefusedError, refused, trimmed
from microseg.serving.front.server import Answer, ModelServer

VERSION = "X-Microseg-Version"
REQUEST_ID = "X-Request-Id"

_INVOCATIONS = "/invocations"
_PASSED_ON = ("/ping", "/health", "/version")
_METRICS = "/metrics"
_SMALLER = "cut the image up, or use 'microseg predict'"
_ALLOWED = f"POST {_INVOCATIONS}, GET {', '.join((*_PASSED_ON, _METRICS))}"
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)

logger = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """The handlers of the front.

    Parameters
    ----------
    follower : Follower
        Whose current server answers.
    options : FrontOptions
        The limits.
    metrics : Metrics
        What is counted, and shown at ``/metrics``.
    """

    def __init__(self, follower: Follower, options: FrontOptions, metrics: Metrics) -> None:
        self._follower, self._options, self._metrics = follower, options, metrics
        self._admitted = 0
        self._slots = asyncio.Semaphore(options.concurrency)

    def application(self) -> web.Application:
        """Return the application that aiohttp serves."""
        # aiohttp counts what arrives, so that chunks of an unknown number end at the limit too.
        application = web.Application(
            middlewares=[self._observed, self._one_line], client_max_size=self._options.max_body
        )
        application.router.add_post(_INVOCATIONS, self._invocations)
        for path in _PASSED_ON:
            application.router.add_get(path, self._passed_on)
        application.router.add_get(_METRICS, self._shown)
        return application

    @web.middleware
    async def _observed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give every request a number; log and count those for masks."""
        given = request.headers.get(REQUEST_ID, "")
        number = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        began = time.perf_counter()
        answer = await handler(request)
        answer.headers[REQUEST_ID] = number
        if request.path == _INVOCATIONS:
            self._note(answer, number, time.perf_counter() - began)
        return answer

    def _note(self, answer: web.StreamResponse, number: str, seconds: float) -> None:
        self._metrics.requests.labels(answer.status).inc()
        self._metrics.seconds.observe(seconds)
        sent = answer.body if isinstance(answer, web.Response) else None
        size = len(sent) if isinstance(sent, bytes) else 0
        self._metrics.sent.inc(size)
        log_event(
            logger, "request", request_id=number, status=answer.status, seconds=round(seconds, 4),
            version=answer.headers.get(VERSION), sent_bytes=size,
        )  # fmt: skip

    @web.middleware
    async def _one_line(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Make one JSON line of every error."""
        try:
            return await handler(request)
        except RefusedError as error:
            return refused(error.status, str(error))
        except web.HTTPRequestEntityTooLarge:
            return refused(413, f"the body has more than {self._options.max_body} bytes; {_SMALLER}")
        except web.HTTPException as error:  # of the router: 404 and 405
            answer = refused(error.status, f"no such request; allowed: {_ALLOWED}")
            answer.headers.update({name: error.headers[name] for name in ("Allow",) if name in error.headers})
            return answer
        except TimeoutError:
            return refused(504, str(trimmed(504, b"")))

    async def _invocations(self, request: web.Request) -> web.Response:
        self._check(request)
        if self._admitted >= self._options.concurrency + self._options.queue:
            raise RefusedError(503, f"{counted(self._admitted, 'request')} are under way; ask again later")
        self._admitted += 1
        self._metrics.in_flight.inc()
        try:
            body = await self._body(request)
            async with asyncio.timeout(self._options.seconds), self._slots:
                await asyncio.to_thread(check_body, body)
                response = await self._asked("POST", _INVOCATIONS, body)
            self._metrics.answered(_warnings(response))
            return response
        finally:
            self._admitted -= 1
            self._metrics.in_flight.dec()

    def _check(self, request: web.Request) -> None:
        """Refuse what need not be read."""
        self._server()
        if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
            raise RefusedError(415, "send the body as Content-Type: application/json, in UTF-8")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise RefusedError(415, "send the body without a Content-Encoding")
        size = request.content_length or 0
        if size > self._options.max_body:
            raise web.HTTPRequestEntityTooLarge(self._options.max_body, size)

    async def _body(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(self._options.seconds):
                body = await request.read()
        except TimeoutError as error:
            raise RefusedError(408, f"the body did not arrive within {self._options.seconds:g} s") from error
        except ConnectionError as error:
            raise RefusedError(400, "the connection ended before the body did; send it again") from error
        self._metrics.received.inc(len(body))
        return body

    def _server(self) -> ModelServer:
        if self._follower.current is None:
            raise RefusedError(503, "no model server is ready; ask again later")
        return self._follower.current

    async def _asked(self, method: str, path: str, body: bytes | None = None) -> web.Response:
        """Ask the server in use, and pass its answer on."""
        server = self._server()
        try:
            async with server.request():
                answer = await server.ask(method, path, body)
        except aiohttp.ClientError as error:
            raise RefusedError(503, "the model server ended and is started again; ask again later") from error
        if answer.status >= 500:
            log_event(
                logger, "model_failed", level=logging.ERROR, status=answer.status,
                last_words=server.last_words,
            )  # fmt: skip
        response = _passed(answer)
        response.headers[VERSION] = server.version
        return response

    async def _passed_on(self, request: web.Request) -> web.Response:
        async with asyncio.timeout(self._options.seconds):
            return await self._asked("GET", request.path)

    async def _shown(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _passed(answer: Answer) -> web.Response:
    if answer.status < 400:
        return web.Response(body=answer.body, content_type=answer.content_type)
    refusal = trimmed(answer.status, answer.body)
    return refused(refusal.status, str(refusal))


def _warnings(response: web.Response) -> list[list[str]]:
    """Return the warnings of each image of an answer; an error has no images."""
    if response.status >= 400 or not isinstance(response.body, bytes):
        return []
    predictions = json.loads(response.body)["predictions"]
    return [prediction["warnings"] for prediction in predictions]
