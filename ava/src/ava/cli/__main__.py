"""`python -m ava.cli`, for where no script is installed."""

from __future__ import annotations

import sys

from ava.cli import main

sys.exit(main())
