"""What is shipped for running the mirror: images, units, samples and dashboards."""
