"""Experiments: the same arms trained on several draws of the data, and compared over the draws.

A plan is a TOML file; the built-in ones are in `plans/`, and docs/experiments/README.md describes
the format. Draw after draw (a project of its own with cases of its own, and runs seeded with the
draw's number) every arm is trained, predicts the held-out cases and is compared with the first arm,
the baseline, and with each control.
"""
