"""The method: networks, noise schedules, samplers, weight functions and families of weight functions."""
