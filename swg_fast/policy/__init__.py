"""What samples: the policy, its settings, its checkpoint, and the backends that do the work."""
