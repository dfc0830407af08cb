"""What `_sampling_state` holds of each chain: journal, count, checkpoint, claim."""
