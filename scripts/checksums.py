"""SHA256SUMS of the files the package ships: one line a file, sorted, as `sha256sum -c` reads it."""

import hashlib
from pathlib import Path


def record(path: Path) -> None:
    """Write or replace the line of `path` in SHA256SUMS beside it."""
    sums = path.with_name("SHA256SUMS")
    lines = sums.read_text().splitlines() if sums.exists() else []
    kept = [line for line in lines if not line.endswith(f"  {path.name}")]
    kept.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    sums.write_text("\n".join(sorted(kept, key=lambda line: line.split()[1])) + "\n")
