"""What `defs.yaml` says of an HTTP API and of its tables. How they are asked belongs in `client`, what is done
with the rows in `rows` and `source`. Secrets are `SecretStr` and reach a message of pydantic in no case: the input
is hidden from the errors of every model that may hold one.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from data_platform.ingestion.source import TableOptions
from data_platform.options import Duration, Options, duration


def _keys(value: object) -> object:
    return tuple(value.split(".")) if isinstance(value, str) else value


def _parameter(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _number_as_text(value: object) -> object:
    """YAML reads `100` as a number and `2013-01-01` as a date; here both are the text that was meant."""
    return value if value is None else str(value)


Keys = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_keys, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]
"""A place in a JSON document: `result.items`, or a list of keys where a key itself has a dot: `["@odata.nextLink"]`."""
Parameter = Annotated[str, BeforeValidator(_parameter, json_schema_input_type=str | int | float | bool)]
Secret = Annotated[SecretStr, Field(min_length=1)]
Text = Annotated[str, BeforeValidator(_number_as_text, json_schema_input_type=str | int | float)]


class _Secretive(Options):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)


class NoAuth(_Secretive):
    """The API is open."""

    type: Literal["none"] = Field(default="none", description="Which kind it is.")


class BearerAuth(_Secretive):
    """`Authorization: Bearer <token>`."""

    type: Literal["bearer"] = Field(description="Which kind it is.")
    token: Secret = Field(description="The token: `{{ env.NAME }}`.")


class BasicAuth(_Secretive):
    """A user name and a password."""

    type: Literal["basic"] = Field(description="Which kind it is.")
    username: str = Field(description="The user name.")
    password: Secret = Field(description="The password: `{{ env.NAME }}`.")


class ApiKeyAuth(_Secretive):
    """A key under a name of the API's choice, in a header or among the query parameters."""

    type: Literal["api_key"] = Field(description="Which kind it is.")
    key: Secret = Field(description="The key: `{{ env.NAME }}`.")
    name: str = Field(default="X-API-Key", description="What the API calls the header or the parameter.")
    location: Literal["header", "query"] = Field(default="header", description="Where the key is sent.")


class OAuth2Auth(_Secretive):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4); the token is renewed when it has run out."""

    type: Literal["oauth2_client_credentials"] = Field(description="Which kind it is.")
    token_url: str = Field(description="Where a token is asked for.")
    client_id: Secret = Field(description="The client: `{{ env.NAME }}`.")
    client_secret: Secret = Field(description="The client's secret: `{{ env.NAME }}`.")
    parameters: dict[str, str] = Field(
        default_factory=dict, description="Further fields of the token request, such as scope or audience."
    )


Auth = Annotated[NoAuth | BearerAuth | BasicAuth | ApiKeyAuth | OAuth2Auth, Field(discriminator="type")]


class NoPagination(Options):
    """One answer holds the whole table."""

    type: Literal["none"] = Field(default="none", description="Which kind it is.")


class NextUrlPagination(Options):
    """The body names the URL of the next page; absent, null, empty or false on the last one."""

    type: Literal["next_url"] = Field(description="Which kind it is.")
    path: Keys = Field(default=("next",), description="Where the body holds the URL.")


class LinkHeaderPagination(Options):
    """The `Link` header (RFC 8288) names the URL of the next page; the last page has no link of that relation."""

    type: Literal["link_header"] = Field(description="Which kind it is.")
    rel: str = Field(default="next", description="The relation of the link, in any case.")


class CursorPagination(Options):
    """The body holds a cursor that asks for the next page; absent, null, empty or false on the last one. Any other
    value is sent, 0 too. A cursor that was sent before is refused: the pages would go round in circles."""

    type: Literal["cursor"] = Field(description="Which kind it is.")
    path: Keys = Field(default=("next",), description="Where the body holds the cursor.")
    param: str = Field(default="cursor", description="The parameter that takes it.")
    last: Text | None = Field(
        default=None, description="Another value that says there is no next page, where the API uses one: 0, -1."
    )
    empty_pages: int | None = Field(
        default=None,
        ge=1,
        description="How many empty pages one after another end the reading, for an API that never ceases to give "
        "cursors. Default: the cursor alone does.",
    )


class PageNumberPagination(Options):
    """Pages are numbered. Reading ends after the page that `total` names, empty ones before it notwithstanding; else
    after `empty_pages` empty ones. A total that falls while pages are read means that rows moved to pages which were
    read already: the reading is refused."""

    type: Literal["page_number"] = Field(description="Which kind it is.")
    param: str = Field(default="page", description="The parameter that takes the number.")
    start: int = Field(default=1, ge=0, description="The number of the first page.")
    total: Keys | None = Field(
        default=None, description="Where the body says how many pages there are; the first page must, later ones may."
    )
    empty_pages: int = Field(
        default=1,
        ge=1,
        description="How many empty pages one after another end the reading where no `total` does. 1 suits most APIs; "
        "more where a filter can leave a page in the middle empty.",
    )


class OffsetPagination(Options):
    """Pages begin at a row number. Reading ends when `total` rows were read, else at the first empty page. A total that
    falls while pages are read means that rows moved to pages which were read already, and one that is not reached that
    rows are missing: either is refused. One row more and one less at once cannot be seen; a `cursor` is safer."""

    type: Literal["offset"] = Field(description="Which kind it is.")
    limit: int = Field(ge=1, description="Rows to ask for at once; the API may give fewer.")
    offset_param: str = Field(default="offset", description="The parameter that takes the row number.")
    limit_param: str = Field(default="limit", description="The parameter that takes `limit`.")
    total: Keys | None = Field(
        default=None,
        description="Where the body says how many rows there are, exactly; the first page must, later ones may.",
    )


Pagination = Annotated[
    NoPagination
    | NextUrlPagination
    | LinkHeaderPagination
    | CursorPagination
    | PageNumberPagination
    | OffsetPagination,
    Field(discriminator="type"),
]


class HttpCursor(Options):
    """How rows that changed since the last load are asked for. The boundary is inclusive: rows at it come again."""

    column: str = Field(description="Field of a row that grows with every change.")
    param: str = Field(description="Parameter that asks for rows whose cursor is at least its value.")
    type: Literal["instant", "number", "text"] = Field(
        default="instant",
        description="How values compare: as ISO 8601 instants (UTC where they name no zone), as numbers, or as text.",
    )
    lag: Text | None = Field(
        default=None,
        description="How far back of the stored cursor to ask, because rows arrive late: a duration, or a number.",
    )
    initial: Text | None = Field(default=None, description="Where the first load begins; default: no parameter.")
    ordered: bool = Field(
        default=False,
        description="The API gives rows in the order of the cursor: a load may then commit before its end.",
    )
    nulls: Literal["include", "refuse"] = Field(default="include", description="What to do with a row without cursor.")
    format: str = Field(
        default="%Y-%m-%dT%H:%M:%SZ",
        description="How an instant is written into the parameter (strftime, UTC). What it leaves out is rounded down.",
    )

    @field_validator("format")
    @classmethod
    def _format_reads_back(cls, value: str) -> str:
        sample = datetime(2013, 11, 22, 13, 14, 15, tzinfo=UTC)
        if sample - instant(sample.strftime(value), value) >= timedelta(days=1):
            raise ValueError(f"{value!r} does not write the day: use for instance %Y-%m-%d or %Y-%m-%dT%H:%M:%SZ")
        return value

    @model_validator(mode="after")
    def _values_fit_the_type(self) -> Self:
        if self.type == "text" and self.lag is not None:
            raise ValueError("a cursor of type text has no lag: nothing can be subtracted from text")
        _ = self.lag_value
        if self.initial is not None:
            comparable(self, self.initial)
        return self

    @property
    def lag_value(self) -> timedelta | Decimal:
        """The lag in the unit of the cursor. Raises ValueError if it is none."""
        if self.type == "number":
            lag = number(self.lag or "0")
            if lag < 0:
                raise ValueError(f"a lag of {lag} lies in the future")
            return lag
        value = duration(self.lag) if self.lag else timedelta()
        assert isinstance(value, timedelta)  # noqa: S101  duration() gives nothing else
        return value


def instant(text: str, layout: str | None = None) -> datetime:
    """An ISO 8601 instant, or one written in `layout`, as UTC; without a zone it is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text) if layout is None else datetime.strptime(text, layout)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def number(text: str) -> Decimal:
    """A finite number. Raises ValueError."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is no number") from None
    if not value.is_finite():
        raise ValueError(f"{text!r} is no number that others compare with")
    return value


def comparable(cursor: HttpCursor, text: str) -> Any:
    """The value of a cursor in a form that compares: datetime, Decimal or str. Raises ValueError."""
    if cursor.type == "instant":
        return instant(text)
    return number(text) if cursor.type == "number" else text


class HttpProbe(Options):
    """One cheap request whose answer changes when there is something new, for the sensor."""

    path: str = Field(description="Path below the source's `url`.")
    value: Keys = Field(
        description="Where the answer holds the newest cursor (incremental), or anything that changes with the table."
    )


class HttpTable(TableOptions):
    """One table of an HTTP API: where it is, how its rows are found, paged through and asked for again."""

    path: str = Field(description="Path below the source's `url`.")
    params: dict[str, Parameter] = Field(
        default_factory=dict, description="Query parameters of every request; `{{ env.NAME }}` for secrets."
    )
    method: Literal["GET", "POST"] = Field(
        default="GET",
        description="With POST, the parameters of `cursor` and `pagination` go into the body (dots reach inside).",
    )
    body: dict[str, Any] | None = Field(default=None, description="JSON body of a POST.")
    rows: Keys | None = Field(
        default=None, description="Where the list of rows is; default: the whole body. Null there means no rows."
    )
    pagination: Pagination = Field(default=NoPagination(), description="How the rows are split into pages.")
    cursor: HttpCursor | None = Field(default=None, description="Makes the table incremental; default: full refresh.")
    probe: HttpProbe | None = Field(
        default=None, description="What the sensor asks for; default: the table is read every `refresh`."
    )

    @model_validator(mode="after")
    def _body_is_posted(self) -> Self:
        if self.body is not None and self.method != "POST":
            raise ValueError("`body` is only sent by method: POST")
        return self


OPEN_HEADERS = ("accept", "accept-language", "content-type", "user-agent")
"""Headers that are no secrets: what they say stands in messages too."""


class HttpConnection(_Secretive):
    """How one HTTP API is reached."""

    url: str = Field(description="Where the API begins, such as https://api.example.com/v1.")
    auth: Auth = Field(default=NoAuth(), description="How requests are authenticated.")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Further headers of every request.")
    timeout: float = Field(
        default=30, gt=0, description="Seconds to wait for a connection, and for the next byte of an answer."
    )
    answer_timeout: Duration = Field(
        default=timedelta(minutes=5), description="How long one answer may take from its first byte to its last."
    )
    max_retries: int = Field(default=5, ge=0, description="How often a request is sent again after 429, 5xx or a loss.")
    patience: Duration = Field(
        default=timedelta(minutes=5), description="No retry begins later than this after the first try."
    )
    requests_per_second: float | None = Field(default=None, gt=0, description="Our own limit, for each process.")

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            there = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of a port, or of brackets; it may quote a password
            there = False
        if not there:
            raise ValueError("the url begins with http:// or https:// and names a host")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "the url holds no password and no parameters: use `auth` of the source, `params` of a table"
            )
        return value

    @property
    def secrets(self) -> list[str]:
        """Every value that must not be shown."""
        headers = [value for name, value in self.headers.items() if name.lower() not in OPEN_HEADERS]
        held = [*headers, *(v for v in dict(self.auth).values() if isinstance(v, SecretStr))]
        basic = self.auth if isinstance(self.auth, BasicAuth) else None
        together = [f"{basic.username}:{basic.password.get_secret_value()}"] if basic else []
        return [secret.get_secret_value() for secret in held] + together


class HttpOptions(HttpConnection):
    """One HTTP API that is read: what all its tables share."""

    load_timeout: Duration = Field(
        default=timedelta(hours=6), description="How long all pages of one load of a table may take."
    )
    max_pages: int = Field(
        default=100_000, ge=1, description="Pages of one load of a table: an API may give pages for ever."
    )


class HttpApi(HttpOptions):
    """An API together with what its tables say of it. `parameters` are those of their requests; it `withholds` what it
    says in errors if a table masks columns, whose values it may quote."""

    parameters: dict[str, Parameter] = Field(default_factory=dict)
    withholds: bool = False

    @classmethod
    def of(cls, options: HttpConnection, tables: Iterable[TableOptions]) -> Self:
        """The API of some tables."""
        tables = list(tables)
        parameters = {k: v for table in tables if isinstance(table, HttpTable) for k, v in table.params.items()}
        return cls(**dict(options), parameters=parameters, withholds=any(table.masks for table in tables))
