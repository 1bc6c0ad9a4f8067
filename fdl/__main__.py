"""`python -m fdl` is the command `fdl`."""

import sys

from fdl.cli import main

sys.exit(main())
