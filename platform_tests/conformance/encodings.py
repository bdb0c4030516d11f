"""Text files whose encoding is known by the folder that they lie in, as chardet publishes them, each as it is and as
small tables of its lines. The encoding that a draft takes is to be one in which the text reads the same, or a person is
asked.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_platform.drafting.encoding import UnclearEncodingError, recognised
from data_platform.drafting.files import SNIFFED_BYTES

ROWS = (3, 30, 300)

_LANGUAGE = re.compile(
    "-(arabic|bulgarian|croatian|czech|greek|hebrew|hungarian|polish|romanian|russian|slovak|slovene|turkish)$"
)
_CODECS = {"macroman": "mac_roman", "maccyrillic": "mac_cyrillic"}
_TWINS = str.maketrans("―・〜−‖￠￡￢¥‾", "—·～－∥¢£¬\\~")
_DECLARED = re.compile(rb"\s*<\?xml[^>]*?encoding=[\"']([\w.-]+)")
_C1 = re.compile("[\x80-\x9f]")
_MARKUP = re.compile(r"<(script|style).*?</\1>|<[^>]*>|&[a-z]+;", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Told:
    """What became of the files of one encoding, as they are or as tables of so many `rows`: `named` are those of which
    a person is asked and shown the right encoding beside others, `asked` are shown others alone, or refused."""

    rows: str
    files: int
    right: int
    named: int
    asked: int
    wrong: int
    example: str


def told(folder: Path) -> Iterator[Told]:
    """The files of a corpus as they are, and as tables; a file that is not in its own encoding, or holds what
    only another shows as signs, is passed over."""
    files = [
        (file, content, text) for file, content, text in _files(folder) if text is not None and not _C1.search(text)
    ]
    yield _counted("as they are", ((str(file), content, text, _declared(content)) for file, content, text in files))
    for rows in ROWS:
        tables = ((str(file), _table(text, rows), _codec(file)) for file, _, text in files)
        contents = ((name, table.encode(codec), table, None) for name, table, codec in tables if not table.isascii())
        yield _counted(f"{rows} rows", contents)


def _counted(rows: str, files: Iterator[tuple[str, bytes, str, str | None]]) -> Told:
    counts: Counter[str] = Counter()
    example = ""
    for name, content, text, declared in files:
        try:
            found = declared or recognised(content[:SNIFFED_BYTES], whole=len(content) < SNIFFED_BYTES).name
        except UnclearEncodingError as unclear:
            outcome = "named" if any(_same(content, one, text) for one in unclear.readings) else "asked"
        else:
            outcome = "right" if _same(content, found, text) else "wrong"
            if declared and _decoded(content, declared) is None:
                outcome = "asked"  # the reader of XML refuses what is not in the encoding that it declares
            example = example or (f"{name}: {found}" if outcome == "wrong" else "")
        counts[outcome] += 1
    figures = {one: counts[one] for one in ("right", "named", "asked", "wrong")}
    return Told(rows=rows, files=counts.total(), example=example, **figures)


def _files(folder: Path) -> Iterator[tuple[Path, bytes, str | None]]:
    for file in sorted(folder.glob("*/*")):
        content = file.read_bytes()
        yield file, content, _decoded(content, _codec(file))


def _codec(file: Path) -> str:
    name = _LANGUAGE.sub("", file.parent.name.lower())
    return _CODECS.get(name, name)


def _declared(content: bytes) -> str | None:
    found = _DECLARED.match(content)
    return None if found is None else found[1].decode()


def _table(text: str, rows: int) -> str:
    """The first lines of a text that are beyond ASCII, without markup, as a table."""
    lines = (re.sub(r"[\s,\";|]+", " ", line).strip()[:60] for line in _MARKUP.sub("\n", text).split("\n"))
    some = [*dict.fromkeys(line for line in lines if not line.isascii())][:rows]
    return "".join(["id,name\n", *(f"{number},{line}\n" for number, line in enumerate(some))])


def _decoded(content: bytes, codec: str) -> str | None:
    try:
        return content.decode(codec)
    except (UnicodeDecodeError, LookupError):
        return None


def _same(content: bytes, codec: str, text: str) -> bool:
    """Whether bytes read as a text does, but for signs that have a twin in another encoding of East Asia."""
    found = _decoded(content, codec)
    return found is not None and _plain(found) == _plain(text)


def _plain(text: str) -> str:
    return text.removeprefix("\ufeff").translate(_TWINS)
