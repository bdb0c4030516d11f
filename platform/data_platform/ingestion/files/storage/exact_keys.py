"""Objects of S3 by their exact keys, for the keys that obstore takes for no path and refuses (`a//b`, a control
character): one of them in a bucket would hide all others. botocore lists and reads them; it is slower, so that
`objects` turns to it only for a bucket that holds such a key, and for those objects.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from obstore import exceptions

from data_platform.ingestion.files.storage import Delivery
from data_platform.ingestion.files.storage.options import StorageOptions

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ExactKeys:
    """The objects of a bucket whose keys have a prefix."""

    def __init__(self, bucket: str, prefix: str, options: StorageOptions, endpoint: str | None) -> None:
        """`prefix` is empty or ends in a slash. Connects to nothing."""
        self._bucket, self._prefix = bucket, prefix
        given = {
            "endpoint_url": endpoint,
            "region_name": options.region,
            "aws_access_key_id": options.access_key_id and options.access_key_id.get_secret_value(),
            "aws_secret_access_key": options.secret_access_key and options.secret_access_key.get_secret_value(),
        }
        config = Config(
            connect_timeout=options.timeout,
            read_timeout=options.timeout,
            retries={"max_attempts": options.max_retries, "mode": "standard"},
            s3={"addressing_style": "path"},
            **({"signature_version": UNSIGNED} if options.anonymous else {}),
        )
        session = botocore.session.get_session()
        self._client = session.create_client("s3", config=config, **{name: one for name, one in given.items() if one})

    def listed(self, beginning: str, after: str) -> Iterator[Delivery]:
        """The objects whose paths below the prefix have a beginning and sort after a path."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket,
            Prefix=self._prefix + beginning,
            **({"StartAfter": self._prefix + after} if after else {}),
        )
        with _as_obstore_says_it():
            for page in pages:
                for one in page.get("Contents", ()):
                    modified = (one["LastModified"] - _EPOCH) // timedelta(microseconds=1) * 1000
                    yield Delivery(one["Key"][len(self._prefix) :], one["Size"], modified, etag=one.get("ETag", ""))

    def read(self, delivery: Delivery, begin: int, end: int, file: BinaryIO) -> None:
        """Write the bytes from `begin` up to `end` of an object, as it was found, to a file."""
        with _as_obstore_says_it():
            answer = self._client.get_object(
                Bucket=self._bucket,
                Key=self._prefix + delivery.path,
                Range=f"bytes={begin}-{end - 1}",
                **({"IfMatch": delivery.etag} if delivery.etag else {}),
            )
            if delivery.etag and answer["ETag"].strip('"') != delivery.etag.strip('"'):
                raise exceptions.PreconditionError("the store did not mind If-Match")
            for block in answer["Body"].iter_chunks(1 << 20):
                file.write(block)

    def delete(self, delivery: Delivery) -> None:
        """Delete an object if it is still the one that was found, where the store can tell (Amazon's can). Raises
        exceptions.PreconditionError if it is another."""
        with _as_obstore_says_it():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + delivery.path, IfMatch=delivery.etag)

    def is_there(self, path: str) -> bool:
        """Whether there is an object of that path."""
        with _as_obstore_says_it():
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + path)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return False
                raise
        return True


@contextmanager
def _as_obstore_says_it() -> Iterator[None]:
    """Failures as those of the other client, so that they are explained in one place."""
    try:
        yield
    except NoCredentialsError:
        raise exceptions.UnauthenticatedError("no credentials were found") from None
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        kind = {
            401: exceptions.UnauthenticatedError,
            403: exceptions.PermissionDeniedError,
            404: exceptions.NotFoundError,
            412: exceptions.PreconditionError,
        }.get(status, exceptions.GenericError)
        raise kind(f"{error} (status code: {status})") from None
    except BotoCoreError as error:
        raise exceptions.GenericError(str(error)) from None
