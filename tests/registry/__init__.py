"""The door, asked over sockets inside the test's own process."""
