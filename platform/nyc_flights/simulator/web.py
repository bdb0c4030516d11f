"""The web server's access log: gzipped JSON lines, one file for each operating day, and their dirt.

Pure functions of the seed and the day, but for `deliver`. Visits are searches, flight pages and the like, and one
confirmation for each booking made through the web that day. Addresses are those reserved for documentation (RFC 5737).
"""

import gzip
from pathlib import Path
from urllib.parse import quote_plus

import polars as pl

from nyc_flights.simulator import bookings, dirt, draws, files, people
from nyc_flights.simulator.days import closes, date_of, iso, opens
from nyc_flights.simulator.flights import NEW_YORK

PER_DAY = (1150, 1450)
MAX_PER_DAY = 10_000
HOST = "https://book.example.com"
DESTINATIONS = ["IAH", "MIA", "ORD", "ATL", "LAX", "SFO", "BOS", "CLT", "MCO", "FLL", "DEN", "SEA"]
SEARCHES = ["cheap flights", "window seat", "São Paulo", "Zürich", "Québec", "San José", "weekend", "Curaçao"]
TAGS = [("google", "cpc"), ("newsletter", "email"), ("facebook", "social"), ("partner", "affiliate")]
SOURCE_VARIANTS = {
    "google": ["GOOGLE", "Google", "gogle"],
    "newsletter": ["Newsletter", "news-letter", "NEWSLETTER"],
    "facebook": ["FaceBook", "fb", "facebok"],
    "partner": ["Partner", "PARTNER", "partnr"],
}
AGENTS = [
    ("desktop", "Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/537.11 (KHTML, like Gecko) Chrome/23.0 Safari/537.11"),
    ("desktop", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.8; rv:17.0) Gecko/20100101 Firefox/17.0"),
    ("desktop", "Mozilla/5.0 (X11; Linux x86_64; rv:17.0) Gecko/20100101 Firefox/17.0"),
    ("mobile", "Mozilla/5.0 (iPhone; CPU iPhone OS 6_0 like Mac OS X) AppleWebKit/536.26 Mobile Safari/8536.25"),
    ("mobile", "Mozilla/5.0 (Linux; Android 4.1.1; Nexus 7) AppleWebKit/535.19 Chrome/18.0 Mobile Safari/535.19"),
    ("bot", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    ("other", "curl/7.28.1"),
]  # fmt: skip
AGENT_SHARES = [0.3, 0.15, 0.1, 0.25, 0.12, 0.06, 0.02]
REFERRERS = ["https://www.google.com/", "https://example.org/travel", "https://news.example.net/"]


def clean(seed: int, day: int) -> pl.DataFrame:
    """Visits of operating day `day` in order of time, without dirt: the fields of a line as they are meant
    (`request_id`, `at`, `client_ip`, `path`, `origin_airport`, `destination_airport`, `q`, `email`, `utm_source`,
    `utm_medium`, `utm_campaign`, `booking_id`, `status`, `bytes`, `user_agent`, `device`, `referrer`), `kind`."""
    low, high = PER_DAY
    count = low + int(draws.scalar(day, seed, "visits a day") * (high - low + 1))
    number = pl.col("number")
    confirmed = bookings.clean(seed, day).filter(pl.col("channel") == "web")
    first = day * MAX_PER_DAY
    looking = pl.DataFrame({"number": pl.int_range(first, first + count, eager=True)}).with_columns(
        page=draws.uniform(number, seed, "page"),
        at=pl.lit(opens(day)) + pl.duration(
            milliseconds=draws.integer(number, seed, "visited at", 1, 86_400_000)),
        booking_id=pl.lit(None, dtype=pl.Int64),
        campaign=draws.choice(number, seed, "visit campaign", bookings.CAMPAIGNS),
        tagged=draws.uniform(number, seed, "tagged") < 0.3,
    )  # fmt: skip
    after = pl.duration(milliseconds=draws.integer(number, seed, "confirmed after", 500, 20_000))
    confirming = confirmed.select(number=first + count + pl.int_range(pl.len()), at="at", booking_id="booking_id",
                                  campaign="campaign").with_columns(
        page=pl.lit(2.0),
        at=pl.min_horizontal(pl.col("at") + after, pl.lit(closes(day))).dt.cast_time_unit("us"),
        tagged=pl.col("campaign").is_not_null(),
    )  # fmt: skip
    rows = pl.concat([looking, confirming.select(looking.columns)])
    return _with_kind(_described(rows, seed, day).sort("at", "number"), seed)


def _described(rows: pl.DataFrame, seed: int, day: int) -> pl.DataFrame:
    number, page = pl.col("number"), pl.col("page")
    search, asset = page < 0.45, (page >= 0.9) & (page < 1)
    shares = {str(number): share for number, share in enumerate(AGENT_SHARES)}
    rows = rows.with_columns(
        tag=draws.integer(number, seed, "tag", 0, len(TAGS) - 1),
        agent=draws.kind(number, seed, "agent", shares).fill_null("0").cast(pl.Int64),
        luck=draws.uniform(number, seed, "status"),
    )
    tag, agent, luck = pl.col("tag"), pl.col("agent"), pl.col("luck")
    host = draws.integer(number, seed, "client", 1, 254).cast(pl.String)
    tagged = pl.col("tagged")
    return rows.with_columns(
        request_id=pl.concat_str(
            pl.lit(f"{day:03}-"), draws.bits(number, seed, "request").cast(pl.String).str.zfill(20)
        ),
        client_ip=pl.concat_str(
            draws.choice(number, seed, "network", ["192.0.2.", "198.51.100.", "203.0.113."]), host
        ),
        path=pl.when(search).then(pl.lit("/search"))
        .when(page < 0.65).then(pl.lit("/"))
        .when(page < 0.82).then(pl.lit("/destinations/") + draws.choice(number, seed, "shown", DESTINATIONS))
        .when(page < 0.9).then(pl.lit("/booking/start"))
        .when(asset).then(pl.lit("/assets/app.css"))
        .otherwise(pl.lit("/booking/confirmed")),
        origin_airport=pl.when(search).then(draws.choice(number, seed, "from", NEW_YORK)),
        destination_airport=pl.when(search).then(draws.choice(number, seed, "to", DESTINATIONS)),
        q=pl.when(search & (draws.uniform(number, seed, "q?") < 0.6)).then(draws.choice(number, seed, "q", SEARCHES)),
        email=pl.when((page >= 0.82) & ~asset & (draws.uniform(number, seed, "email?") < 0.1))
        .then(people.passengers(number, seed)["passenger_email"]),
        utm_source=pl.when(tagged).then(draws.pick(tag, [source for source, _ in TAGS])),
        utm_medium=pl.when(tagged).then(draws.pick(tag, [medium for _, medium in TAGS])),
        utm_campaign=pl.when(tagged).then("campaign"),
        status=pl.when(asset & (luck < 0.5)).then(304).when((page < 1) & (luck > 0.98)).then(404).otherwise(200)
        .cast(pl.Int64),
        user_agent=draws.pick(agent, [text for _, text in AGENTS]),
        device=draws.pick(agent, [device for device, _ in AGENTS]),
        referrer=pl.when(draws.uniform(number, seed, "referrer?") < 0.4)
        .then(draws.choice(number, seed, "referrer", REFERRERS)),
    ).with_columns(
        bytes=pl.when(pl.col("status") != 304).then(draws.integer(number, seed, "bytes", 400, 60_000)),
    )  # fmt: skip


def _with_kind(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    number = pl.col("number")
    bad = dirt.quarantined("visits")

    def drawn(*kinds: str) -> pl.Expr:
        return draws.kind(number, seed, f"visit {kinds[0]}", dirt.rates("visits", *kinds))

    rows = rows.with_columns(
        general=drawn(*bad, "time_as_epoch", "status_as_text", "duplicate"),
        search=drawn("search_mojibake", "search_latin1"),
        airport=drawn("airport_lower_case"),
        source=drawn("utm_untidy"),
        dash=drawn("bytes_dash"),
    )
    booked = pl.col("booking_id").is_not_null() & pl.col("general").is_in(bad)
    bodiless = pl.col("bytes").is_null() & (pl.col("general") == "bytes_negative")
    kind = pl.coalesce(
        pl.when(~booked & ~bodiless.fill_null(False)).then("general"),
        pl.when(pl.col("q").is_in([term for term in SEARCHES if not term.isascii()])).then("search"),
        pl.when(pl.col("origin_airport").is_not_null()).then("airport"),
        pl.when(pl.col("utm_source").is_not_null()).then("source"),
        pl.when(pl.col("status") == 304).then("dash"),
    )
    return rows.with_columns(kind=kind).drop("general", "search", "airport", "source", "dash")


def deliver(folder: Path, seed: int, day: int) -> pl.DataFrame:
    """Write the file of `day`; the truth about it."""
    name = f"access-{date_of(day)}.jsonl.gz"
    lines, truth = log_file(seed, day)
    # All lines are ASCII but for those that are to be spoiled by a letter in Latin-1.
    content = gzip.compress("".join(f"{line}\n" for line in lines).encode("latin-1"), compresslevel=6, mtime=0)
    files.deliver(folder / name, content)
    return dirt.record(truth.with_columns(file=pl.lit(name)), "visits", day)


def log_file(seed: int, day: int) -> tuple[list[str], pl.DataFrame]:
    """The lines of the file of `day`, and what is spoiled in them."""
    number = pl.col("number")
    quoted = {term: quote_plus(term) for term in SEARCHES}
    mojibake = {term: quote_plus(term.encode().decode("cp1252")) for term in SEARCHES}
    latin1 = {term: quote_plus(term, encoding="latin-1") for term in SEARCHES}
    rows = clean(seed, day).with_columns(
        key=pl.col("request_id"),
        ts=_text(iso(pl.col("at")).str.replace("Z", "", literal=True) + pl.col("at").dt.strftime("%.3f") + "Z"),
        status_token=pl.col("status").cast(pl.String),
        bytes_token=pl.col("bytes").cast(pl.String).fill_null("null"),
        q_quoted=pl.col("q").replace(quoted),
    )
    twice = rows.filter(pl.col("kind") == "duplicate")
    rows = pl.concat([
        rows.with_columns(kind=pl.when(pl.col("kind") != "duplicate").then("kind"), copy=0),
        twice.with_columns(copy=1),
    ]).sort("at", "number", "copy").with_row_index("line", offset=1).cast({"line": pl.Int64})  # fmt: skip
    variant = draws.integer(number, seed, "source variant", 0, 2)
    untidy = pl.coalesce(
        pl.when(pl.col("utm_source") == source).then(draws.pick(variant, variants))
        for source, variants in SOURCE_VARIANTS.items()
    )
    rows, done = dirt.spoil(
        rows,
        "kind",
        {
            "time_as_epoch": {"ts": pl.col("at").dt.epoch("ms").cast(pl.String)},
            "status_as_text": {"status_token": pl.concat_str(pl.lit('"'), "status_token", pl.lit('"'))},
            "airport_lower_case": {
                "origin_airport": pl.col("origin_airport").str.to_lowercase(),
                "destination_airport": pl.col("destination_airport").str.to_lowercase(),
            },
            "utm_untidy": {"utm_source": untidy},
            "search_mojibake": {"q_quoted": pl.col("q").replace(mojibake)},
            "search_latin1": {"q_quoted": pl.col("q").replace(latin1)},
            "bytes_dash": {"bytes_token": pl.lit('"-"')},
            "status_impossible": {"status_token": pl.when(number % 2 == 0).then(pl.lit("999")).otherwise(pl.lit("0"))},
            "bytes_negative": {"bytes_token": pl.concat_str(pl.lit("-"), "bytes_token")},
            "request_id_missing": {"request_id": pl.lit(None, dtype=pl.String)},
            "line_not_utf8": {"referrer": pl.lit("https://example.org/voyages/québec")},
            "time_unreadable": {"ts": pl.lit('"2013-13-45T99:00:00Z"')},
        },
        ["key", "line"],
    )
    rows = rows.with_columns(record=_line())
    cut = pl.col("kind") == "line_cut_off"
    rows = rows.with_columns(record=pl.when(cut).then(pl.col("record").str.head(40 + number % 100)).otherwise("record"))
    extra = rows.filter(pl.col("kind").is_in(["line_cut_off", "duplicate"])).select(
        "key", "line", kind="kind", column=pl.lit("record"), original=pl.lit(None, dtype=pl.String), spoiled="record"
    )
    plain = {quoted_term: term for term, quoted_term in quoted.items()}
    done = done.with_columns(
        column=pl.col("column").replace({"status_token": "status", "bytes_token": "bytes", "q_quoted": "q"}),
        original=pl.col("original").replace(plain).str.strip_chars('"'),
    )
    return rows["record"].to_list(), pl.concat([done, extra])


def _line() -> pl.Expr:
    """The JSON of a visit; the columns that may be spoiled are JSON tokens already."""
    tokens = {
        "ts": pl.col("ts"),
        "client_ip": _text(pl.col("client_ip")),
        "method": pl.lit('"GET"'),
        "url": _text(_url()),
        "status": pl.col("status_token"),
        "user_agent": _text(pl.col("user_agent")),
        "referrer": _text(pl.col("referrer")),
        "bytes": pl.col("bytes_token"),
        "request_id": _text(pl.col("request_id")),
    }
    fields = [pl.concat_str(pl.lit(f'"{name}":'), token) for name, token in tokens.items()]
    return pl.concat_str(pl.lit("{"), pl.concat_str(fields, separator=","), pl.lit("}"))


def _text(text: pl.Expr) -> pl.Expr:
    """A JSON string token. None of the texts needs escaping: URLs are percent-encoded, the rest are lists of ours."""
    return pl.concat_str(pl.lit('"'), text, pl.lit('"')).fill_null("null")


def _url() -> pl.Expr:
    campaigns = {name: quote_plus(name) for name in bookings.CAMPAIGNS}
    parameters = {
        "booking_id": pl.col("booking_id").cast(pl.String),
        "from": pl.col("origin_airport"),
        "to": pl.col("destination_airport"),
        "q": pl.col("q_quoted"),
        "email": pl.col("email").str.replace("@", "%40", literal=True),
        "utm_source": pl.col("utm_source"),
        "utm_medium": pl.col("utm_medium"),
        "utm_campaign": pl.col("utm_campaign").replace(campaigns),
    }
    given = [pl.concat_str(pl.lit(f"{name}="), value) for name, value in parameters.items()]
    query = pl.concat_str(given, separator="&", ignore_nulls=True)
    query = pl.when(query != "").then(pl.concat_str(pl.lit("?"), query)).otherwise(pl.lit(""))
    return pl.concat_str(pl.lit(HOST), "path", query)
