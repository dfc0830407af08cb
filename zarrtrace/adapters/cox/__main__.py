"""`python -m zarrtrace.adapters.cox`: TensorBoard on experiments of cox."""

from .tensorboard import main

raise SystemExit(main())
