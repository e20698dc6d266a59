"""Sweeps: grids of trainings and evaluations from a TOML file, run on Ray, and their reports."""
