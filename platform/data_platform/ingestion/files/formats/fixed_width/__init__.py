"""Fixed-width files, as text in lines or as mainframes send them: `options` says how a file is laid out, `copybook`
takes that from COBOL, `records` cuts a stream into records, `layout` cuts those into fields, `numbers` reads what COBOL
makes of numbers, `trailers` checks counts and sums, and `reader` makes rows of it all.
"""

from data_platform.ingestion.files.formats.fixed_width.options import FixedColumn, FixedWidth
from data_platform.ingestion.files.formats.fixed_width.reader import FORMAT, read

__all__ = ["FORMAT", "FixedColumn", "FixedWidth", "read"]
