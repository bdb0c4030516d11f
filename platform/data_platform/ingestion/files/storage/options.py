"""What `defs.yaml` says of how a storage is reached."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import ClassVar, Self

from pydantic import Field, SecretStr, model_validator

from data_platform.options import VARIABLE, Duration, Options, Written

BUCKETS = ("s3", "gs", "az")
"""The schemes of addresses of buckets."""

HTTP = ("http", "https")
"""The schemes of addresses of folders on HTTP servers."""

SCHEMES = (*BUCKETS, "sftp", *HTTP, "hdfs")
"""Where files are read from, besides folders of this machine."""

_OF_S3 = {"endpoint", "region", "anonymous", "access_key_id", "secret_access_key"}
_OF_SFTP = {"private_key", "known_hosts", "host_key"}
_NOT_FOR: dict[str, set[str]] = {
    **{one: {*_OF_SFTP, "password", "token"} for one in BUCKETS},
    "sftp": {*_OF_S3, "token", "max_retries", "patience"},
    **{one: {*_OF_S3, *_OF_SFTP} for one in HTTP},
    "hdfs": {*_OF_S3, *_OF_SFTP, "password", "token", "max_retries", "patience"},
}


class StorageOptions(Options):
    """How the folder is reached where it lies elsewhere: `s3://`, `gs://`, `az://`, `sftp://`, `https://`,
    `hdfs://`. A folder of this machine needs none of it."""

    endpoint: str | None = Field(
        default=None,
        description="Of `s3://`: where the store answers if it is not Amazon's: http://minio:9000. "
        "Default: AWS_ENDPOINT_URL.",
    )
    region: str | None = Field(default=None, description="Of `s3://`: the bucket's region. Default: AWS_REGION.")
    anonymous: bool = Field(
        default=False, description="The requests of a bucket are not signed: for those that are public."
    )
    access_key_id: SecretStr | None = Field(
        default=None,
        description="Of `s3://`: '{{ env.NAME }}'. Default: AWS_ACCESS_KEY_ID and the others, or else the role of the "
        "machine, as AWS has them. `gs://` and `az://` take what GOOGLE_* and AZURE_* say.",
    )
    secret_access_key: SecretStr | None = Field(default=None, description="Of `s3://`: '{{ env.NAME }}'.")
    password: SecretStr | None = Field(
        default=None, description="Of `sftp://`, and of `https://` with a user: '{{ env.NAME }}'."
    )
    token: SecretStr | None = Field(
        default=None, description="Of `https://`: sent as `Authorization: Bearer`: '{{ env.NAME }}'."
    )
    private_key: str | None = Field(
        default=None, description="Of `sftp://`: the file of the private key, which has no passphrase."
    )
    known_hosts: str | None = Field(
        default=None, description="Of `sftp://`: the file with the server's key. Default: ~/.ssh/known_hosts."
    )
    host_key: str | None = Field(
        default=None,
        pattern="^SHA256:[A-Za-z0-9+/]{43}=?$",
        description="Of `sftp://`: the fingerprint of the server's key, instead of `known_hosts`: SHA256:... as "
        "ssh-keygen -l prints it.",
    )
    timeout: float = Field(
        default=30, gt=0, description="Seconds to wait for a connection, and for the next byte of an answer."
    )
    answer_timeout: Duration = Field(
        default=timedelta(minutes=5),
        description="How long one answer may take: a page of a listing, 64 MiB of a file.",
    )
    max_retries: int = Field(
        default=5,
        ge=0,
        description="Of buckets and `https://`: how often a request is sent again after 429, 5xx or a loss.",
    )
    patience: Duration = Field(
        default=timedelta(minutes=5),
        description="Of buckets and `https://`: no retry begins later than this after the first try.",
    )


class DeclaredStorage(StorageOptions, Written):
    """A folder and how it is reached, as YAML has them: secrets and places may be variables of the environment."""

    places: ClassVar[Sequence[str]] = SCHEMES
    folder: str = Field(description="The folder.")

    @model_validator(mode="after")
    def _options_of_the_storage(self) -> Self:
        if not VARIABLE.search(self.folder.partition("://")[0]):
            refuse_other_storage(self.folder, self.model_fields_set, self.places)
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("`access_key_id` and `secret_access_key` are needed together")
        if self.anonymous and self.access_key_id is not None:
            raise ValueError("`anonymous` and `access_key_id` exclude each other")
        return self


def refuse_other_storage(folder: str, given: Collection[str], places: Sequence[str]) -> None:
    """Raise ValueError for a folder at none of some places (schemes of addresses), or an option that says nothing of
    how it is reached."""
    scheme = folder.partition("://")[0] if "://" in folder else ""
    if scheme and scheme not in places:
        raise ValueError(
            f"`folder` begins with {scheme}://, which is no place for these files: name a folder, or "
            f"{', '.join(f'{one}://' for one in places)}"
        )
    said = sorted(set(given) & set(StorageOptions.model_fields))
    if said and not scheme:
        raise ValueError(f"`{said[0]}` says how another machine is reached, but `folder` ({folder}) is of this one")
    if other := sorted(set(said) & _NOT_FOR.get(scheme, set())):
        raise ValueError(f"`{other[0]}` is not for {scheme}://: the reference (dp docs) says what is")
