"""From a probability map to labelled objects, in one piece or in blocks of an image of any size.

A label map numbers the objects from 1 to n without a gap; 0 is background. All lengths are in pixels.
"""

from microseg.instances.blocks import BLOCK, HALO, Stitched, label_blocks
from microseg.instances.choice import candidates, search_instances
from microseg.instances.methods import (
    INSTANCES,
    Labels,
    Method,
    Probability,
    components,
    foreground_of,
    label_objects,
    method_of,
    watershed,
)
from microseg.instances.table import IN_MICROMETRES, Table, measure_blocks, measurements

__all__ = [
    "BLOCK",
    "HALO",
    "INSTANCES",
    "IN_MICROMETRES",
    "Labels",
    "Method",
    "Probability",
    "Stitched",
    "Table",
    "candidates",
    "components",
    "foreground_of",
    "label_blocks",
    "label_objects",
    "measure_blocks",
    "measurements",
    "method_of",
    "search_instances",
    "watershed",
]
