"""Sweeps: a grid of trainings and evaluations from one TOML file, run on Ray, and the report of it."""
