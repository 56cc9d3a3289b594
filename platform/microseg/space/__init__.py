"""A search space: YAML in the shape of a `TrialConfig`, with distributions in place of values.

Four distributions, ``{uniform: [low, high]}``, ``{log_uniform: [low, high]}``, ``{int_uniform: [low, high]}``
and ``{choice: [...]}``, plus ``{one_of: [...]}``, whose options are themselves spaces. Values only: no import
paths, no code. A parameter is named by its path (``model/params/depth``); where two branches define the same
path differently, the branch's label is put into the name (``model/unet/params/depth``).
"""

from microseg.space.constraints import check_constraints
from microseg.space.nodes import Number, OneOf, Scalar
from microseg.space.parsing import parse_space
from microseg.space.sampling import RandomSuggest, Suggest
from microseg.space.space import Dimension, Space

__all__ = [
    "Dimension",
    "Number",
    "OneOf",
    "RandomSuggest",
    "Scalar",
    "Space",
    "Suggest",
    "check_constraints",
    "parse_space",
]
