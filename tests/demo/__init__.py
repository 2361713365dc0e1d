"""`layover demo`, run as its users run it, and the parts that it tells its story with."""
