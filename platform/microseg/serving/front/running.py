"""Run a front: its port, its follower, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

import aiohttp
from aiohttp import web

from microseg.errors import MicrosegError
from microseg.logs import log_event
from microseg.serving.front.follower import Follower
from microseg.serving.front.gateway import Gateway
from microseg.serving.front.metrics import Metrics
from microseg.serving.front.options import FrontOptions
from microseg.serving.front.registered import Model, RegisteredModel

_LINGER = 2.0  # seconds to read on after a refusal, or a client that still sends sees no answer
_KEPT = 75.0  # seconds that a client's connection may be idle

logger = logging.getLogger(__name__)


def serve(options: FrontOptions) -> None:
    """Serve a registered model until SIGTERM or SIGINT.

    Parameters
    ----------
    options : FrontOptions
        Which model, where, and the limits.

    Raises
    ------
    MicrosegError
        If the address cannot be listened at.
    """
    asyncio.run(until_a_signal(RegisteredModel(options), options))


async def until_a_signal(model: Model, options: FrontOptions) -> None:
    """Serve a model until SIGTERM or SIGINT, see `run`."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(model, options, stop)


async def run(model: Model, options: FrontOptions, stop: asyncio.Event) -> None:
    """Serve a model until an event is set; requests under way are answered before all servers end.

    Raises
    ------
    MicrosegError
        If the address cannot be listened at.
    """
    metrics = Metrics()
    # A connection for each request: a kept one may be closed by the server just as the next one is sent.
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    timeout = aiohttp.ClientTimeout()  # the gateway has its own
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        )
        follower = Follower(model, options, session, metrics)
        runner = await _listening(Gateway(follower, options, metrics).application(), options)
        following = asyncio.create_task(follower.follow())
        stack.push_async_callback(_ended, following)
        stack.push_async_callback(runner.cleanup)  # called first: stops accepting, waits for requests
        await _first(following, stop)
        log_event(logger, "stopping", model=options.model)


async def _listening(application: web.Application, options: FrontOptions) -> web.AppRunner:
    runner = web.AppRunner(
        application,
        access_log=None,
        shutdown_timeout=options.seconds,
        lingering_time=_LINGER,
        keepalive_timeout=_KEPT,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
    except OSError as error:
        await runner.cleanup()
        raise MicrosegError(
            f"cannot listen at {options.host}:{options.port} ({error.strerror}); "
            "choose another --host or --port"
        ) from error
    port = runner.addresses[0][1]
    log_event(logger, "listening", model=options.model, host=options.host, port=port)
    if options.open_to_others:
        log_event(
            logger, "no_authentication", level=logging.WARNING, host=options.host,
            reason="whoever reaches this port may use the model; put an authenticating proxy before it",
        )  # fmt: skip
    return runner


async def _first(following: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Wait for the event, or for the follower to fail, which it never should."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


async def _ended(following: asyncio.Task[None]) -> None:
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
