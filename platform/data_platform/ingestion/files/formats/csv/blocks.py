"""A stream of delimited text cut into blocks of whole lines, as long as nobody knows where its records end."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_platform.ingestion.files.formats.csv.options import Csv
from data_platform.ingestion.files.formats.text import LONGEST


@dataclass(frozen=True)
class Block:
    """Whole lines: their bytes, the number of the first, how many they are."""

    data: bytes
    line: int
    lines: int


class Records:
    """Cuts blocks of lines where records seem to end: at a line feed with an even number of quotes before it. A wrong
    guess (quotes that are plain text) costs time, not rows: the parsers find out."""

    def __init__(self, blocks: Iterator[bytes], options: Csv, line: int = 1) -> None:
        self._blocks = blocks
        self._quote = options.quote.encode() if options.quote else None
        self._carry = b""
        self._line = line
        self._ended = False

    def has_more(self) -> bool:
        """Whether there is another block than the one in hand."""
        return not self._ended and self._more()

    @property
    def exhausted(self) -> bool:
        return not self._carry and not self._more()

    def take(self, more_than: int = 0) -> Block | None:
        """The next block, of more than so many bytes if there are."""
        while True:
            data = self._carry
            cut = self._cut(data) if len(data) > more_than else 0
            cut = cut if cut > more_than else 0  # else it would be the same block again, for ever
            if not cut and (len(data) > LONGEST or not self._more()):
                cut = len(data)
            if cut:
                block = Block(data[:cut], self._line, data.count(b"\n", 0, cut))
                self._carry, self._line = data[cut:], block.line + block.lines
                return block
            if not data and self._ended:
                return None

    def put_back(self, data: bytes, line: int) -> None:
        """Give back what was taken but not parsed, which begins at the line of that number."""
        self._carry, self._line = data + self._carry, line

    def beginning(self, lines: int) -> bytes:
        """The next so many lines, or what there is, which are not taken."""
        while self._carry.count(b"\n") < lines and self._more():
            pass
        return b"".join(line + b"\n" for line in self._carry.split(b"\n", lines)[:-1])

    def skip_lines(self, count: int) -> None:
        """Pass over the next so many lines."""
        while count and (self._carry or self._more()):
            *passed, self._carry = self._carry.split(b"\n", count)
            self._line += len(passed)
            count -= len(passed)

    def _more(self) -> bool:
        block = None if self._ended else next(self._blocks, None)
        self._ended = block is None
        self._carry += block or b""
        return block is not None

    def _cut(self, data: bytes) -> int:
        cut = data.rfind(b"\n") + 1
        if self._quote is None:
            return cut
        odd = data.count(self._quote, 0, cut) % 2
        while odd and cut:
            earlier = data.rfind(b"\n", 0, data.rfind(self._quote, 0, cut)) + 1
            odd = (odd + data.count(self._quote, earlier, cut)) % 2
            cut = earlier
        return cut


def lines_of(data: bytes) -> list[str]:
    return [line + "\n" for line in data.decode("utf-8", "surrogateescape").split("\n")[:-1]]


def bytes_of(lines: list[str]) -> bytes:
    return "".join(lines).encode("utf-8", "surrogateescape")
