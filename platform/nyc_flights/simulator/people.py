"""Invented passengers: combinations of common names, addresses in the domains reserved for examples (RFC 2606) and
telephone numbers of the range reserved for fiction (555-0100 to 555-0199). Nobody real."""

import polars as pl

from nyc_flights.simulator import draws

_FIRST = [
    "Ana", "Björn", "Chloé", "Dmitri", "Elif", "Fatima", "Gustavo", "Hana", "Ines", "José", "Kofi", "Linh", "María",
    "Noor", "Olga", "Pedro", "Quinn", "Renée", "Søren", "Tomás", "Uma", "Vera", "Wei", "Ximena", "Yusuf", "Zoë",
]  # fmt: skip
_LAST = [
    "Almeida", "Bergström", "Castañeda", "Dubois", "Eriksen", "Fischer", "García", "Hernández", "Ivanova", "Jensen",
    "Kowalski", "Lefèvre", "Müller", "Nguyen", "Okafor", "Peña", "Quiroga", "Rossi", "Santos", "Tanaka", "Ueda",
    "Vargas", "Weiß", "Xu", "Yılmaz", "Zając",
]  # fmt: skip
_PLAIN = str.maketrans("öéíáøëèüñıąãęćł", "oeiaoeeuniaaecl") | {ord("ß"): "ss"}
_DOMAINS = ["example.com", "example.org", "example.net"]
_PHONES = ["+1-212-555-01", "(646) 555-01", "718.555.01", "917 555 01"]


def passengers(number: pl.Expr, seed: int) -> dict[str, pl.Expr]:
    """`passenger_name`, `passenger_email`, `passenger_phone` for each row number; a person may come again."""
    first = draws.integer(number, seed, "first name", 0, len(_FIRST) - 1)
    last = draws.integer(number, seed, "last name", 0, len(_LAST) - 1)
    digits = draws.integer(number, seed, "person", 0, 99).cast(pl.String).str.zfill(2)
    return {
        "passenger_name": pl.concat_str(draws.pick(first, _FIRST), draws.pick(last, _LAST), separator=" "),
        "passenger_email": pl.concat_str(
            draws.pick(first, [_handle(name) for name in _FIRST]),
            pl.lit("."),
            draws.pick(last, [_handle(name) for name in _LAST]),
            digits,
            pl.lit("@"),
            draws.choice(number, seed, "mail domain", _DOMAINS),
        ),
        "passenger_phone": pl.concat_str(draws.choice(number, seed, "phone", _PHONES), digits),
    }


def _handle(name: str) -> str:
    return name.lower().translate(_PLAIN)
