"""Which version of a model serves: what decides it, its history, and the way back."""

from microseg.registry.decision import (
    Decision,
    ImageScore,
    Meeting,
    artifact,
    decide,
    force,
    record,
    recorded,
)
from microseg.registry.history import (
    CHAMPION,
    Promotion,
    challenger,
    champion,
    history,
    promote,
    rollback,
    succeed,
)
from microseg.registry.otsu import Otsu, fit_otsu
from microseg.registry.page import Overlay, page
from microseg.registry.rights import check_model, check_rights
from microseg.registry.sentences import sentences
from microseg.registry.uses import count_use, hold_out_digest

__all__ = [
    "CHAMPION",
    "Decision",
    "ImageScore",
    "Meeting",
    "Otsu",
    "Overlay",
    "Promotion",
    "artifact",
    "challenger",
    "champion",
    "check_model",
    "check_rights",
    "count_use",
    "decide",
    "fit_otsu",
    "force",
    "history",
    "hold_out_digest",
    "page",
    "promote",
    "record",
    "recorded",
    "rollback",
    "sentences",
    "succeed",
]
