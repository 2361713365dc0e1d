"""Real clients that pull through Layover: one harness per client, and the image that they pull."""
