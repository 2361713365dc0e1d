"""`make soak`: replicas whose stores are too small for what is pulled, in a fleet and each on its own, for minutes."""
