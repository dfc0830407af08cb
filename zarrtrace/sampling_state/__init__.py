"""What `_sampling_state` holds for each chain: journal, count, checkpoint, claim.

`encode_state` and `decode_state` are for adapters: nested values ↔ JSON text, bit for bit and
without pickle, as checkpoints have them.
"""

from .state_text import decode_state, encode_state

__all__ = ["decode_state", "encode_state"]
