"""One model server: a version of the model in processes of its own, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

from microseg.errors import MicrosegError
from microseg.logs import redacted
from microseg.serving.front import guard
from microseg.serving.front.registered import Model

_TAIL = 4000  # characters of a server's last words
_PAUSE = 0.05  # seconds between two looks whether it is there
_ENDING = 10.0  # seconds for the guard to tidy up


class Answer(NamedTuple):
    """What a model server answered."""

    status: int
    body: bytes
    content_type: str


class ModelServer:
    """The processes that serve one version, and the requests they have.

    Parameters
    ----------
    version : str
        The model's version.
    session : aiohttp.ClientSession
        To ask the server with.
    on_end : callable
        Called when the processes have ended, for whatever reason.
    """

    def __init__(self, version: str, session: aiohttp.ClientSession, on_end: Callable[[], None]) -> None:
        self.version = version
        self.began = time.monotonic()
        self._session, self._on_end = session, on_end
        self._watch: asyncio.Task[None] | None = None
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_words = ""

    @property
    def ended(self) -> bool:
        """Whether its processes are gone."""
        return self._watch is not None and self._watch.done()

    @property
    def last_words(self) -> str:
        """The end of what it wrote, without credentials."""
        return redacted(self._last_words)

    async def start(self, model: Model, seconds: float) -> None:
        """Start it, and come back when it has made a prediction; whoever calls this calls `stop`.

        Raises
        ------
        MicrosegError
            If it ends, does not answer in time, or answers the stored example with no mask.
        """
        await self._launch(model)
        try:
            async with asyncio.timeout(seconds):
                example = await asyncio.to_thread(model.example, self.version)
                await self._healthy()
                self._check(await self.ask("POST", "/invocations", example))
        except TimeoutError as error:
            raise MicrosegError(f"version {self.version} is not ready after {seconds:g} s") from error
        except aiohttp.ClientError as error:
            raise MicrosegError(f"version {self.version} ended at its first prediction") from error

    async def _launch(self, model: Model) -> None:
        # The guard makes it: what this process made, nobody would remove were it killed now.
        self._folder = str(Path(tempfile.gettempdir()) / f"microseg-serve-{uuid.uuid4().hex}")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        self._process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-I",
                "-S",
                guard.__file__,
                self._folder,
                *model.command(self.version, port),
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=model.environment(),
            start_new_session=True,  # Ctrl-C is the front's to handle
        )
        self._watch = asyncio.create_task(self._watched())

    async def _watched(self) -> None:
        """Wait until the processes have ended."""
        reading = asyncio.create_task(self._read())
        # wait() may wait for the pipe too (python/cpython#119710), which the children of a killed guard hold.
        while self._process.returncode is None:
            await asyncio.sleep(_PAUSE)
        # Were the guard killed alone, the others of its group would live on, and its folder stay.
        self._kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        await reading
        self._on_end()

    async def _read(self) -> None:
        """Keep the last lines of the output."""
        assert self._process.stdout is not None
        while text := await self._process.stdout.read(2**16):
            self._last_words = (self._last_words + text.decode("utf-8", "replace"))[-_TAIL:]

    async def _healthy(self) -> None:
        while not self.ended:
            with contextlib.suppress(aiohttp.ClientError):
                if (await self.ask("GET", "/ping")).status == 200:
                    return
            await asyncio.sleep(_PAUSE)
        raise MicrosegError(f"the model server of version {self.version} ended before it answered")

    def _check(self, answer: Answer) -> None:
        try:
            (prediction,) = json.loads(answer.body)["predictions"]
            mask, version = prediction["mask"], prediction["version"]
        except (ValueError, LookupError, TypeError) as error:
            raise MicrosegError(
                f"version {self.version} answers its own example with status {answer.status} and no mask"
            ) from error
        if not mask or version != self.version:
            raise MicrosegError(f"version {self.version} answers with an empty mask, or as version {version}")

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Send a request to it.

        Raises
        ------
        aiohttp.ClientError
            If it ends meanwhile.
        """
        # aiohttp takes large bytes only as a stream: it would warn that they block its loop.
        data = None if body is None else io.BytesIO(body)
        headers = {"Content-Type": "application/json"}
        async with self._session.request(method, self._address + path, data=data, headers=headers) as answer:
            return Answer(answer.status, await answer.read(), answer.content_type)

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Count a request: `drained` waits for its end."""
        self._requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def drained(self) -> None:
        """Wait until it has no request left, or has ended."""
        assert self._watch is not None
        idle = asyncio.create_task(self._idle.wait())
        await asyncio.wait({idle, self._watch}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()

    async def stop(self) -> None:
        """End its processes, where there are any; at the end of its input the guard does."""
        if self._watch is None:
            return
        for end in (self._end_input, self._kill):
            end()
            await asyncio.wait({self._watch}, timeout=_ENDING)
            if self.ended:
                return

    def _end_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter of zombies, on macOS
            os.killpg(self._process.pid, signal.SIGKILL)
