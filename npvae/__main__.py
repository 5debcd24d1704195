"""`python -m npvae` is the command `npvae`."""

import sys

from npvae.app.cli import main

sys.exit(main())
