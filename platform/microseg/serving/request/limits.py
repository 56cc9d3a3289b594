"""What a server may be asked for, set by whoever starts it through environment variables."""

from __future__ import annotations

import os

from pydantic import Field, ValidationError, field_validator

from microseg.config import Strict
from microseg.errors import MicrosegError, first_problem

PIXELS = "MICROSEG_SERVING_PIXELS"
ROOTS = "MICROSEG_SERVING_ROOTS"


class Limits(Strict):
    """Bounds of one request.

    ``pixels`` is how many the images of a request may have together: 8192 x 8192 by default, about half a
    minute of a small network on a few cores. ``roots`` are the folders, ``file:///...`` or ``s3://...``,
    that addresses in a request may lie in; by default there is none, and no address is read.
    """

    pixels: int = Field(default=2**26, ge=1)
    roots: tuple[str, ...] = ()

    @field_validator("roots")
    @classmethod
    def _folders(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        for root in roots:
            scheme, _, rest = root.partition("://")
            if scheme not in ("file", "s3") or not rest.strip("/"):
                raise ValueError(f"'{root}' is no folder; give file:///FOLDER or s3://BUCKET[/PREFIX]")
        return roots

    @property
    def bytes(self) -> int:
        """The largest file that is fetched: four channels of float32, uncompressed, and room for a header."""
        return 16 * self.pixels + 2**20

    @classmethod
    def from_environment(cls) -> Limits:
        """Return what ``MICROSEG_SERVING_PIXELS`` and ``MICROSEG_SERVING_ROOTS`` (comma-separated) say.

        Raises
        ------
        MicrosegError
            If one of them says nothing that can be kept.
        """
        roots = [root.strip() for root in os.environ.get(ROOTS, "").split(",")]
        values: dict[str, object] = {"roots": tuple(filter(None, roots))}
        if os.environ.get(PIXELS):
            values["pixels"] = os.environ[PIXELS]
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise MicrosegError(f"{PIXELS}, {ROOTS}: {first_problem(error, cls)}") from error

    @property
    def exceeded(self) -> str:
        """What to answer to more pixels than these."""
        return (
            f"more than {self.pixels} pixels in one request, the most that this server answers ({PIXELS}); "
            "cut the image up, or use 'microseg predict'"
        )


DEFAULT = Limits()
