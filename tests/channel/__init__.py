"""The channel between doors and the hub: both transports behave alike."""
