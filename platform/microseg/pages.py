"""What every HTML page is made with: templates, pictures within the text, and colours of charts.

The pages open without a network, so that all they show is in them.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # Okabe and Ito: told apart by colour-blind readers


def environment() -> Environment:
    """Return where the templates are; what they are not given is an error."""
    return Environment(
        loader=PackageLoader("microseg", "templates"), autoescape=True, undefined=StrictUndefined
    )


def data_address(kind: str, content: bytes) -> str:
    """Return the address of a picture that holds the picture; ``kind`` is ``png`` or ``jpeg``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def svg(figure: Figure) -> str:
    """Return a figure as the text of an SVG element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
