"""A draw goes in: record → row → journal → chunk → store."""
