"""Playing a policy and measuring it: episodes, reports, pictures, the toy, inspection, throughput."""
