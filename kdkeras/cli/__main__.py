"""`python -m kdkeras.cli`."""

import sys

from kdkeras.cli import main

sys.exit(main())
