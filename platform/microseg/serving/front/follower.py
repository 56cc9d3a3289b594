"""Follow an alias: the version that it names serves as soon as it is proven to answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator

import aiohttp

from microseg.errors import MicrosegError
from microseg.logs import log_event
from microseg.serving.front.metrics import Metrics
from microseg.serving.front.options import FrontOptions
from microseg.serving.front.pauses import Pauses
from microseg.serving.front.registered import Model
from microseg.serving.front.server import ModelServer

logger = logging.getLogger(__name__)


class Follower:
    """The model server that takes requests, and how it is replaced.

    A registry that is away, an alias that is deleted and a version that does not come up change nothing: what
    serves goes on. A server that ends is started anew, and at most two exist at a time.

    Parameters
    ----------
    model : Model
        What is followed.
    options : FrontOptions
        How often, and for how long.
    session : aiohttp.ClientSession
        To ask the servers with.
    metrics : Metrics
        Where switches, failures and restarts are counted.
    """

    def __init__(
        self, model: Model, options: FrontOptions, session: aiohttp.ClientSession, metrics: Metrics
    ) -> None:
        self.current: ModelServer | None = None
        self._model, self._options, self._session, self._metrics = model, options, session, metrics
        self._proven: str | None = None  # the version that served last
        self._wanted: str | None = None  # the version that the alias named last
        self._state = ""
        self._pauses = Pauses(options.poll)
        self._draining: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def follow(self) -> None:
        """Follow the alias until cancelled; then all servers end."""
        try:
            while True:
                self._wake.clear()
                await self._step()
                # Not wait_for, which before Python 3.12 may lose a cancellation (python/cpython#86296).
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._options.poll):
                        await self._wake.wait()
        finally:
            await self._end()

    async def _step(self) -> None:
        await self._look()
        self._lose()
        for version in self._candidates():
            if await self._started(version):
                return

    async def _look(self) -> None:
        """Ask the registry where the alias points; a state that lasts is said once."""
        try:
            found = await asyncio.to_thread(self._model.version)
        except MicrosegError as error:
            self._say("registry_away", reason=str(error))
            return
        self._metrics.registry_read.set_to_current_time()
        if found is None:
            self._say("alias_missing", reason="promote a version; until then nothing changes")
            return
        self._say("alias_found", version=found)
        self._wanted = found

    def _say(self, state: str, **fields: str) -> None:
        if state != self._state:
            level = logging.INFO if state == "alias_found" else logging.WARNING
            log_event(logger, state, level=level, model=self._options.model, **fields)
        self._state = state

    def _lose(self) -> None:
        """Notice that the server in use has ended by itself."""
        if self.current is None or not self.current.ended:
            return
        lost, self.current = self.current, None
        self._metrics.restarts.inc()
        self._metrics.up.set(0)
        self._pauses.failed(lost.version, time.monotonic() - lost.began)
        log_event(
            logger, "server_ended", level=logging.ERROR, version=lost.version, last_words=lost.last_words
        )

    def _candidates(self) -> Iterator[str]:
        """Yield what to start: the alias's version, and, where nothing serves, the one that did."""
        serving = self.current.version if self.current else None
        for version in dict.fromkeys((self._wanted, self._proven)):
            if version is not None and version != serving and not self._pauses.pausing(version):
                yield version
            if serving is not None:
                return

    async def _started(self, version: str) -> bool:
        if self._draining is not None:
            await asyncio.wait({self._draining})  # a third server might not fit into the memory
        server = ModelServer(version, self._session, self._wake.set)
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(server.stop)
                await server.start(self._model, self._options.start)
                await self._look()
                if self.current is not None and self._wanted != version:
                    log_event(logger, "start_abandoned", version=version, wanted=self._wanted)
                    return False  # it was rolled back meanwhile, and never serves
                stack.pop_all()
        except (MicrosegError, OSError) as error:
            self._fail(server, error)
            return False
        self._switch(server)
        return True

    def _fail(self, server: ModelServer, error: Exception) -> None:
        self._metrics.failed.inc()
        self._pauses.failed(server.version)
        log_event(
            logger, "start_failed", level=logging.ERROR, version=server.version, reason=str(error),
            last_words=server.last_words,
        )  # fmt: skip

    def _switch(self, server: ModelServer) -> None:
        """Send requests to a server from now on; the former one ends when it has no more."""
        former, self.current = self.current, server
        if self._proven not in (None, server.version):
            self._metrics.switches.inc()
        log_event(
            logger, "serving", version=server.version, former=self._proven,
            seconds=round(time.monotonic() - server.began, 3),
        )  # fmt: skip
        self._proven = server.version
        self._metrics.up.set(1)
        self._metrics.model.clear()
        self._metrics.model.labels(self._options.name, self._options.alias, server.version).set(1)
        if former is not None:
            self._draining = asyncio.create_task(self._drain(former))

    async def _drain(self, server: ModelServer) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.seconds):
                await server.drained()
        await server.stop()
        log_event(logger, "drained", version=server.version)

    async def _end(self) -> None:
        """End the server in use, and wait for the former one."""
        server, self.current = self.current, None
        self._metrics.up.set(0)
        if server is not None:
            await server.stop()
        if self._draining is not None:
            await self._draining
