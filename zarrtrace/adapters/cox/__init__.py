"""cox: experiments in stores of tables, under cox's names.

Instead of `from cox.store import Store`, `from cox.readers import CollectionReader` and
`from cox.utils import Parameters, override_json`::

    from zarrtrace.adapters.cox import CollectionReader, Parameters, Store, override_json

The command `cox-tensorboard` is `python -m zarrtrace.adapters.cox`. What is different: a row that
was flushed survives `kill -9`; other processes read while it is written; text has any length;
an empty table is kept when its store is opened again; columns OBJECT hold JSON, and pickles are
read by `get_pickle`, or with `CollectionReader(..., allow_pickle=True)`, and never otherwise.
"""

from .parameters import Parameters, override_json
from .readers import CollectionReader
from .store import SAVE_DIR, TABLE_OBJECT_DIR, TENSORBOARD_DIR, Store, Table
from .tensorboard import has_tensorboard, main
from .values import OBJECT, PICKLE, PYTORCH_STATE, schema_from_dict

__all__ = [
    "OBJECT",
    "PICKLE",
    "PYTORCH_STATE",
    "SAVE_DIR",
    "TABLE_OBJECT_DIR",
    "TENSORBOARD_DIR",
    "CollectionReader",
    "Parameters",
    "Store",
    "Table",
    "has_tensorboard",
    "main",
    "override_json",
    "schema_from_dict",
]
