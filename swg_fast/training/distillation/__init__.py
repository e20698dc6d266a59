"""From a teacher's guided walks to a student that makes them in one call: pairs, learning, the run."""
