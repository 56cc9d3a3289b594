"""S3 by boto3: one client per server and set of credentials, and its errors in one line."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from microseg.errors import MicrosegError

_ENDPOINTS = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REASONS = {
    "NoSuchBucket": "no such bucket; create it or check the name",
    "NoSuchKey": "no such object; check the key, upper and lower case count",
    "404": "no such bucket or object; check both names, upper and lower case count",
    "403": "access denied; check that the credentials may use this bucket, and this machine's clock",
    "AccessDenied": "access denied; check that the credentials may use this bucket",
    "InvalidAccessKeyId": "the access key is unknown to the server; check AWS_ACCESS_KEY_ID",
    "RequestTimeTooSkewed": "this machine's clock is over 15 minutes from the server's; set it (timedatectl)",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
}


def is_remote(uri: str) -> bool:
    """Tell whether a URI lies in object storage (``s3://``)."""
    return uri.startswith("s3://")


def address(uri: str, *, needs_key: bool) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or (needs_key and (not key or key.endswith("/"))):
        raise MicrosegError(f"{uri}: not a complete address; expected s3://BUCKET/KEY")
    return bucket, key


def keys(bucket: str, prefix: str, delimiter: str = "/") -> list[str]:
    """Return the keys with a prefix and no further delimiter; some servers list a marker for the folder."""
    found = (entry["Key"] for entry in entries(bucket, prefix, delimiter))
    return [key for key in found if key != prefix or not prefix.endswith("/")]


def entries(bucket: str, prefix: str, delimiter: str = "") -> list[dict[str, Any]]:
    """Return what the server tells of each object under a prefix."""
    return [entry for page in pages(bucket, prefix, delimiter) for entry in page.get("Contents", [])]


def pages(bucket: str, prefix: str, delimiter: str) -> Iterable[dict[str, Any]]:
    """Return what the server lists under a prefix, some thousand entries at a time."""
    paginator = client().get_paginator("list_objects_v2")
    found: Iterable[dict[str, Any]] = paginator.paginate(Bucket=bucket, Prefix=prefix, Delimiter=delimiter)
    return found


def _endpoint() -> str | None:
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)


def client() -> Any:
    """Return boto3's client for the server and the credentials that the environment names now."""
    return _connect(_endpoint(), frozenset(item for item in os.environ.items() if item[0].startswith("AWS_")))


@functools.lru_cache(maxsize=4)
def _connect(endpoint: str | None, _environment: frozenset[tuple[str, str]]) -> Any:
    """Return a client; boto3's own default session would keep the first credentials it saw for ever."""
    import boto3  # imported late: it costs half a second, and most runs are local
    from botocore.config import Config

    config = Config(
        connect_timeout=10,
        retries={"mode": "standard", "total_max_attempts": 3},
        # Other servers than AWS rarely answer to bucket.host names or know the newer checksum trailers.
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.Session().client("s3", endpoint_url=endpoint, config=config)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn boto3's errors into one line; its texts are not repeated, as they may hold addresses and keys."""
    from boto3.exceptions import Boto3Error  # of transfers that were tried again and again
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        raise MicrosegError(f"{uri}: {_REASONS.get(code, f'the server refused ({code})')}") from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise MicrosegError(f"{uri}: no complete credentials; {hint}") from None
    except exceptions.ParamValidationError:
        raise MicrosegError(f"{uri}: not a valid bucket or key; expected s3://BUCKET/KEY") from None
    except (Boto3Error, exceptions.HTTPClientError, exceptions.BotoCoreError) as error:
        where = urlsplit(_endpoint() or "").hostname or "AWS"
        hint = f"check that it runs, and {_ENDPOINTS[0]}"
        problem = type(error).__name__
        raise MicrosegError(f"{uri}: the storage server {where} cannot be used ({problem}); {hint}") from None
