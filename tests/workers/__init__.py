"""A replica of several processes: a hub, doors, and the parent that keeps them running."""
