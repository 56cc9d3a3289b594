"""What the front of a model server may be asked for."""

from __future__ import annotations

import re

from pydantic import ByteSize, Field, field_validator

from microseg.config import Strict

_ALIAS = re.compile(r"models:/(?P<name>[^@/]+)@(?P<alias>[^@/]+)")


class FrontOptions(Strict):
    """Which model is served, where, and the bounds of what the server takes.

    ``model`` is ``models:/NAME@ALIAS``; ``poll`` is how many seconds lie between two looks at where the alias
    points. A body has at most ``max_body`` bytes; ``concurrency`` requests are with the model server at a
    time, ``queue`` more wait, and each is answered within ``seconds``, which is also what requests get to end
    when the front or one of its model servers ends. ``start`` is how many seconds a new model server has
    until its first prediction. Port 0 is any that is free.
    """

    model: str
    host: str = "127.0.0.1"
    port: int = Field(default=5001, ge=0, le=65535)
    poll: float = Field(default=10.0, ge=0.01, le=86400)
    max_body: ByteSize = Field(default=ByteSize(64 * 2**20), ge=1)
    concurrency: int = Field(default=4, ge=1)
    queue: int = Field(default=16, ge=0)
    seconds: float = Field(default=60.0, gt=0.0, le=3600)
    start: float = Field(default=180.0, gt=0.0)

    @field_validator("model")
    @classmethod
    def _an_alias(cls, model: str) -> str:
        if not _ALIAS.fullmatch(model):
            raise ValueError("give models:/NAME@ALIAS, such as models:/cells@champion")
        return model

    @property
    def name(self) -> str:
        """The registered model's name."""
        return self.model.removeprefix("models:/").partition("@")[0]

    @property
    def alias(self) -> str:
        """The alias that is followed."""
        return self.model.partition("@")[2]

    @property
    def open_to_others(self) -> bool:
        """Whether other machines may reach the server."""
        return self.host not in ("127.0.0.1", "localhost", "::1")
