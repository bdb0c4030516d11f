"""Delimited text. Fields stay text, an empty field is an empty text (quoted or not), never null.

Two parsers give the same rows. Arrow's (`fast`) is quick but lenient, so a block is taken from it only when it is
proven that both read it alike: quoting matches the grammar, and records and line feeds add up. All else goes through
Python's `csv` in strict mode (`strict`), which is the definition of what a record is.
"""

from data_platform.ingestion.files.formats.csv.options import Csv
from data_platform.ingestion.files.formats.csv.reader import read
from data_platform.ingestion.files.formats.format import FileFormat

__all__ = ["FORMAT", "Csv", "read"]

FORMAT = FileFormat(Csv, read)
