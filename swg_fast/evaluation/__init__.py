"""Evaluating a policy: episodes, reports, pictures, the toy check, inspection, throughput."""
