"""Images on all machines of a cluster, by workers of Ray Data: small ones whole, large ones in parts.

A row of Ray Data is a place: the number of an image and that of a part of it. Pixels never are: workers read
them from the image and write them to the mask, both on a file system that all machines share, or on S3.
"""

from microseg.serving.batch.cluster.driver import predict_on_cluster

__all__ = ["predict_on_cluster"]
