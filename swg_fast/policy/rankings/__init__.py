"""Rankings: which of a state's candidates is kept. A file each, and a line in `policy.ranking_names`."""
