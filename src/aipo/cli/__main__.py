"""`python -m aipo.cli`, as torchrun starts it."""

import sys

from aipo.cli.main import main

sys.exit(main())
