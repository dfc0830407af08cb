"""Keys and bytes: any Zarr store, the codec of a chunk, `zarr.json`, small arrays."""
