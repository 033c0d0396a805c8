"""GPT, at the place where the releases have it."""
