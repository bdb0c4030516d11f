"""The schema registry: which schema an id of a message stands for. It is asked once for each id of a reading; what the
schemas mean is in `avro`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.kafka.options import Registry
from data_platform.lakehouse.settings import redact_url
from data_platform.redaction import register

TIMEOUT = 10
"""Seconds that the registry may take to connect, and to answer."""

RETRIES = Retry(total=2, backoff_factor=0.2, status_forcelist=(429, 502, 503, 504), raise_on_status=False)

NOT_FOUND = {40401, 40402, 40403}
"""Codes of the protocol for a subject, a version or a schema that does not exist: any other 404 is of another page."""


@dataclass(frozen=True)
class Schema:
    """A schema as it is registered: its text, its kind (AVRO, JSON, PROTOBUF), and the texts of those that it refers
    to, in the order in which they are to be read."""

    text: str
    kind: str = "AVRO"
    references: tuple[str, ...] = ()


@dataclass
class SchemaRegistry:
    """A registry, and the schemas that it was asked for."""

    options: Registry
    _session: requests.Session = field(default_factory=requests.Session)
    _schemas: dict[int, Schema | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options, session = self.options, self._session
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=RETRIES))
        session.headers["Accept"] = "application/vnd.schemaregistry.v1+json, application/json"
        secrets = [one.get_secret_value() for one in (options.password, options.token) if one is not None]
        register(*secrets)
        if options.token is not None:
            session.headers["Authorization"] = f"Bearer {secrets[-1]}"
        elif options.username is not None:
            session.auth = (options.username, secrets[0] if secrets else "")
        if options.ca is not None:
            session.verify = options.ca

    def schema(self, number: int) -> Schema | None:
        """The schema of an id; None if the registry knows none. Raises PlatformError if it does not answer, or refuses:
        then nothing can be said of a message."""
        if number not in self._schemas:
            found = self._get(f"schemas/ids/{number}")
            self._schemas[number] = None if found is None else self._schema(found)
        return self._schemas[number]

    def latest(self, subject: str) -> Schema | None:
        """The schema that a subject has now; None if there is no such subject."""
        found = self._get(f"subjects/{quote(subject, safe='')}/versions/latest")
        return None if found is None else self._schema(found)

    def _schema(self, found: Mapping[str, Any]) -> Schema:
        references: list[str] = []
        for one in found.get("references") or ():
            version = self._get(f"subjects/{quote(one['subject'], safe='')}/versions/{one['version']}")
            if version is None:
                raise PlatformError(
                    f"The schema registry at {self._where} has no version {one['version']} of {one['subject']}, to "
                    "which another schema refers."
                )
            referred = self._schema(version)
            references += [text for text in (*referred.references, referred.text) if text not in references]
        return Schema(found["schema"], found.get("schemaType") or "AVRO", tuple(references))

    @property
    def _where(self) -> str:
        return redact_url(self.options.url)

    def _get(self, path: str) -> Any:
        """The answer to a request; None if there is no such thing."""
        try:
            answer = self._session.get(f"{self.options.url.rstrip('/')}/{path}", timeout=TIMEOUT)
        except requests.exceptions.SSLError as error:
            raise PlatformError(f"The schema registry at {self._where}: TLS failed: {error}. Check `ca`.") from None
        except requests.RequestException as error:
            raise TransientError(f"The schema registry at {self._where} does not answer: {error}.") from None
        try:
            body = answer.json()
        except requests.JSONDecodeError:
            body = None
        if answer.ok and isinstance(body, dict):
            return body
        code = body.get("error_code") if isinstance(body, dict) else None
        if answer.status_code == 404 and code in NOT_FOUND:
            return None
        said = f"The schema registry at {self._where} answered {answer.status_code} {answer.reason} to {path}"
        if answer.status_code in (401, 403):
            raise PlatformError(f"{said}: check its `username` and `password`, or `token`.")
        if answer.status_code >= 500 or answer.status_code == 429:
            raise TransientError(f"{said}.")
        raise PlatformError(f"{said}. Is this its address? That of Apicurio ends in /apis/ccompat/v7.")
