"""What `defs.yaml` says of how a storage is reached."""

from datetime import timedelta

from pydantic import Field, SecretStr

from data_platform.options import Duration, Options


class StorageOptions(Options):
    """How the folder is reached where it lies elsewhere: `s3://`, `gs://`, `az://`, `sftp://`, `https://`. A folder of
    this machine needs none of it."""

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
