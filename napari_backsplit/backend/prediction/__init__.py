"""Model and image -> lesion mask."""
