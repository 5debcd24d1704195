"""`python -m npvae` is the command `npvae`."""

import sys

from npvae.cli import main

sys.exit(main())
