"""Stands in for MLflow in a child process: writes down what it is sent."""
