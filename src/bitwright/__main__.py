"""`python -m bitwright` is the command `bitwright`."""

import sys

from .cli import main

sys.exit(main())
