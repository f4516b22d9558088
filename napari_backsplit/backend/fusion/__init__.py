"""Masks -> label map: priorities, overlaps, quality checks."""
