"""Constraints: what they refuse and why, and which of them make no sense."""

import pytest

from microseg.config import Constraint
from microseg.errors import MicrosegError
from microseg.space import check_constraints, parse_space

VALUES = {
    "model": {
        "one_of": [
            {"name": "unet", "params": {"depth": {"int_uniform": [2, 5]}}},
            {"name": "u2net"},
        ]
    },
    "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
    "preprocess": {"name": "scale", "params": {"channels": {"choice": [[0], [0, 1]]}, "clahe": {"choice": [False, 2.0]}}},
    "tile": {"choice": [64, 128, 256]},
    "epochs": 10,
}  # fmt: skip
DEEP = {"when": {"model/params/depth": 5}, "need": {"tile": {"min": 256}}}


def space(*constraints):
    return parse_space(
        VALUES, "s.yaml", [Constraint.model_validate(constraint) for constraint in constraints]
    )


def unet(depth, **rest):
    return {"model": {"name": "unet", "params": {"depth": depth}}, **rest}


@pytest.mark.parametrize(
    ("constraint", "config", "reason"),
    [
        (DEEP, unet(5, tile=128), "model/params/depth 5 only with tile >= 256 (given: tile 128)"),
        (DEEP | {"reason": "depth 5 leaves 8 pixels"}, unet(5, tile=128), "depth 5 leaves 8 pixels (given: tile 128)"),
        (DEEP, unet(5, tile=256), None),
        (DEEP, unet(4, tile=64), None),
        (DEEP, unet(5), None),
        (DEEP, {"model": {"name": "u2net"}, "tile": 64}, None),
        (DEEP, {"model": "unet", "tile": 64}, None),
        ({"need": {"tile": [64, 128]}}, {"tile": 256}, "only with tile 64 or 128 (given: tile 256)"),
        ({"need": {"tile": {"max": 128}}}, {"tile": 256}, "only with tile <= 128 (given: tile 256)"),
        ({"need": {"tile": {"min": 64, "max": 128}}}, {"tile": 256}, "only with tile from 64 to 128 (given: tile 256)"),
        ({"when": {"model/name": ["unet", "u2net"], "tile": 64}, "need": {"epochs": 10, "optimizer/name": "sgd"}},
         {"model": {"name": "u2net"}, "tile": 64, "epochs": 10, "optimizer": {"name": "adam"}},
         "model/name unet or u2net and tile 64 only with epochs 10 and optimizer/name sgd (given: optimizer/name adam)"),
        ({"when": {"preprocess/params/clahe": {"min": 0}}, "need": {"tile": 64}},
         {"preprocess": {"params": {"clahe": False}}, "tile": 128}, None),
        ({"need": {"preprocess/params/channels": [[0], [1]]}}, {"preprocess": {"params": {"channels": [0]}}}, None),
        ({"need": {"preprocess/params/clahe": 0}}, {"preprocess": {"params": {"clahe": False}}},
         "only with preprocess/params/clahe 0 (given: preprocess/params/clahe False)"),
        ({"need": {"optimizer/params/learning_rate": {"max": "1e-3"}}}, {"optimizer": {"params": {"learning_rate": 1e-4}}}, None),
    ],
)  # fmt: skip
def test_a_constraint_refuses_with_its_reason(constraint, config, reason):
    assert space(constraint).violated(config) == reason


def test_the_first_constraint_that_refuses_says_why():
    both = space({"need": {"tile": 64}}, {"need": {"epochs": 5}})
    assert both.violated({"tile": 64, "epochs": 10}) == "only with epochs 5 (given: epochs 10)"


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ({"when": {"model/params/dept": 5}, "need": {"tile": 64}},
         "s.yaml: constraints[0]: when: unknown path 'model/params/dept'; did you mean 'model/params/depth'? allowed: epochs, "),
        ({"need": {"model": "unet"}}, "need: unknown path 'model'; did you mean 'model/name'?"),
        ({"when": {"model/params/depth": 6}, "need": {"tile": 64}}, "when: 'model/params/depth 6' never holds; the space has 2 to 5"),
        ({"when": {"model/params/depth": 2.5}, "need": {"tile": 64}}, "'model/params/depth 2.5' never holds"),
        ({"when": {"model/params/depth": {"min": 2.2, "max": 2.8}}, "need": {"tile": 64}}, "from 2.2 to 2.8' never holds"),
        ({"when": {"model/params/depth": None}, "need": {"tile": 64}}, "'model/params/depth None' never holds"),
        ({"when": {"model/params/depth": True}, "need": {"tile": 64}}, "'model/params/depth True' never holds"),
        ({"need": {"tile": {"min": 512}}}, "need: 'tile >= 512' never holds; the space has 64, 128, 256"),
        ({"need": {"model/name": "u_net"}}, "'model/name u_net' never holds; the space has unet, u2net"),
        ({"need": {"tile": {"mim": 3}}}, "need: tile: {'mim': 3} is no condition; give a value, a list of values, or a mapping with min or max"),
        ({"need": {"tile": {}}}, "tile: {} is no condition"),
        ({"need": {"tile": {"min": 3, "max": 2}}}, "tile: {'min': 3, 'max': 2} is no condition"),
        ({"need": {"tile": {"min": "big"}}}, "tile: {'min': 'big'} is no condition"),
        ({"need": {"epochs": {"mni": 3}}}, "epochs: {'mni': 3} is no condition"),
        ({"need": {"optimizer/params/learning_rate": {"mni": 3}}}, "{'mni': 3} is no condition"),
        ({"need": {"tile": []}}, "'tile ' never holds"),
    ],
)  # fmt: skip
def test_a_constraint_that_makes_no_sense_is_refused(constraint, said):
    one = space(constraint)
    with pytest.raises(MicrosegError) as caught:
        check_constraints(one.constraints, one.root, "s.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "conditions",
    [{"model/params/depth": 5}, {"model/params/depth": [5, 9]}, {"model/params/depth": {"min": 4.5}}, {"epochs": 10},
     {"optimizer/params/learning_rate": {"max": 1e-3}}, {"model/name": "u2net", "preprocess/params/channels": [[0, 1]]}],
)  # fmt: skip
def test_a_constraint_that_can_hold_passes(conditions):
    one = space({"when": conditions, "need": conditions})
    check_constraints(one.constraints, one.root, "s.yaml")
