"""Predictions against the reference: metrics, lesions, statistics, report."""
