"""Many runs in one folder: list them, compare them, and see where each came from.

```python
trace = zt.folder.create("experiments", "centered", chains=4, draws=1000, posterior={"mu": 0.0})
runs = zt.folder.open("experiments")
```
"""

from .run import Run
from .runs import Runs, create, open, record_provenance

__all__ = ["Run", "Runs", "create", "open", "record_provenance"]
