"""A builder's signature is the only schema of its parameters."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from microseg.components import bind, check, create
from microseg.config import Component
from microseg.errors import MicrosegError


def cake(
    guests: int, *, layers: Annotated[int, Field(ge=1, le=5)] = 2, glaze: Literal["none", "sugar"] = "none"
) -> str:
    return f"{guests} {layers} {glaze}"


def pie(guests: int, *, filling: str) -> str:
    return f"{guests} {filling}"


TABLE = {"cake": cake, "pie": pie}


def component(name: str, **params: object) -> Component:
    return Component(name=name, params=params)


def test_parameters_are_converted_and_handed_over():
    assert create(component("cake", layers="3"), TABLE, "dessert", 8) == "8 3 none"
    assert bind(component("pie", filling="plum"), TABLE, "dessert")(2) == "2 plum"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (component("cak"), "unknown dessert 'cak'; did you mean 'cake'? allowed: cake, pie"),
        (component("cake", layer=2), "dessert 'cake': unknown parameter 'layer'; did you mean 'layers'?"),
        (
            component("cake", layers=9),
            "dessert 'cake': parameter 'layers' is 9; Input should be less than or equal",
        ),
        (component("cake", glaze="salt"), "parameter 'glaze' is 'salt'; Input should be 'none' or 'sugar'"),
        (component("cake", guests=3), "dessert 'cake': unknown parameter 'guests'"),
        (component("pie"), "dessert 'pie': parameter 'filling' is required; add it under params"),
    ],
)
def test_what_does_not_fit_is_refused(given, said):
    with pytest.raises(MicrosegError) as caught:
        check(given, TABLE, "dessert")
    assert said in str(caught.value)
