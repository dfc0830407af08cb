"""Many runs in one folder: list them, compare them, know where each came from.

```python
trace = zt.runs.create("experiments", "centered", chains=4, draws=1000, posterior={"mu": 0.0})
runs = zt.runs.open("experiments")
```
"""

from .folder import Runs, create, open, record_provenance
from .run import Run

__all__ = ["Run", "Runs", "create", "open", "record_provenance"]
