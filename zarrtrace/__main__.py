"""`python -m zarrtrace`: the command line."""

from .cli import main

raise SystemExit(main())
