"""Seeds, models and files -> support masks."""
