"""How a delivery is put into the landing folder: whole or not at all."""

import os
from pathlib import Path


def deliver(path: Path, content: bytes) -> None:
    """Write beside the target under a hidden name that no delivery's pattern matches, then rename over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".incoming-{os.getpid()}.tmp"
    temporary.write_bytes(content)
    temporary.replace(path)
