"""`python benchmarks/conformance`: the folder's parent takes its place on the path, so that it is a package."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from conformance.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
