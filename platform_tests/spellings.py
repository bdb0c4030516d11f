"""How a text may be spelt on its way through programs: what tests look for to be sure that it is nowhere to be seen."""

import base64
import html
import json
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote, quote_plus


def lower_percents(text: str) -> str:
    parts = text.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "as it is": lambda s: s,
    "percent-encoded": lambda s: quote(s, safe=""),
    "percent-encoded but for slashes": quote,
    "percent-encoded in lower case": lambda s: lower_percents(quote(s, safe="")),
    "percent-encoded as Latin-1": lambda s: quote(s, safe="", encoding="latin-1", errors="replace"),
    "percent-encoded twice": lambda s: quote(quote(s, safe=""), safe=""),
    "in part": lambda s: s[:3] + quote(s[3:], safe=""),
    "every character percent-encoded": lambda s: "".join(f"%{byte:02X}" for byte in s.encode()),
    "as a form": quote_plus,
    "JSON": lambda s: json.dumps(s)[1:-1],
    "JSON in UTF-8": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "JSON with slashes escaped": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "JSON within JSON": lambda s: json.dumps(json.dumps(s))[3:-3],
    "HTML": lambda s: html.escape(s),
    "HTML by numbers": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "HTML by hexadecimal numbers": lambda s: "".join(f"&#x{ord(c):X};" for c in s),
    "SQL": lambda s: s.replace("'", "''"),
    "Python": lambda s: repr(s)[1:-1],
    "Python's bytes": lambda s: repr(s.encode())[2:-1],
    "hexadecimal": lambda s: s.encode().hex(),
    "hexadecimal in upper case": lambda s: s.encode().hex().upper(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 without padding": lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "base64, percent-encoded": lambda s: quote(base64.b64encode(s.encode()).decode(), safe=""),
    "base64 after one letter": lambda s: base64.b64encode(f"m:{s}".encode()).decode(),
    "base64 after two letters": lambda s: base64.b64encode(f"me:{s}".encode()).decode(),
    "base64 after three letters": lambda s: base64.b64encode(f"you:{s}".encode()).decode(),
    "base64 in the middle": lambda s: base64.b64encode(f'{{"password": "{s}", "more": 1}}'.encode()).decode(),
}


def forms(*secrets: str) -> list[str]:
    """All spellings of some texts; those of base64 without what they share with their neighbours."""
    found = {spell(secret) for secret in secrets for spell in SPELLINGS.values()}
    return sorted(found)


def seen(text: str, secrets: Iterable[str]) -> list[str]:
    """The spellings of secrets that a text shows."""
    return [form for form in forms(*secrets) if form in text]
