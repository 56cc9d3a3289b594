"""What the front counts, for Prometheus."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"
# How the sentences of `microseg.serving.unlike` begin, by the kind that they are counted as.
KINDS = {
    "the image's values lie": "intensity",
    "the image is more blurred": "blur",
    "the image is noisier": "noise",
    "a pixel is": "pixel_size",
}
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def kind_of(warning: str) -> str:
    """Return what a warning of unlike input is about; sentences have numbers, and are no label."""
    return next((kind for start, kind in KINDS.items() if warning.startswith(start)), OTHER)


class Metrics:
    """The metrics of one front, in a registry of their own."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("microseg_requests", "Requests for masks.", ["status"], registry=own)
        self.seconds = Histogram(
            "microseg_request_seconds", "Time to answer one.", registry=own, buckets=_SECONDS
        )
        self.in_flight = Gauge("microseg_requests_in_flight", "Under way, with those waiting.", registry=own)
        self.received = Counter("microseg_received_bytes", "Bodies of requests.", registry=own)
        self.sent = Counter("microseg_sent_bytes", "Bodies of answers.", registry=own)
        self.images = Counter("microseg_images", "Images with a mask.", registry=own)
        self.unlike = Counter("microseg_unlike_images", "Those that are unlike the training's.", registry=own)
        self.warnings = Counter(
            "microseg_warnings", "In what way; one image may be so in several.", ["kind"], registry=own
        )
        for kind in (*KINDS.values(), OTHER):  # counted from 0: what is absent cannot be alerted on
            self.warnings.labels(kind)
        self.switches = Counter("microseg_switches", "Changes to another version.", registry=own)
        self.failed = Counter(
            "microseg_failed_starts", "Model servers that did not come up, of any version.", registry=own
        )
        self.restarts = Counter("microseg_restarts", "Model servers that ended by themselves.", registry=own)
        self.registry_read = Gauge(
            "microseg_registry_read_timestamp_seconds", "When the registry last answered.", registry=own
        )
        self.up = Gauge("microseg_model_up", "Whether a model server takes requests.", registry=own)
        self.model = Gauge(
            "microseg_model_info", "The version that serves.", ["model", "alias", "version"], registry=own
        )

    def answered(self, images: Sequence[Sequence[str]]) -> None:
        """Count the images of one answer; of each, the warnings are given."""
        self.images.inc(len(images))
        self.unlike.inc(sum(bool(warnings) for warnings in images))
        for warning in itertools.chain.from_iterable(images):
            self.warnings.labels(kind_of(warning)).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format, see `CONTENT_TYPE`."""
        return generate_latest(self._registry)
