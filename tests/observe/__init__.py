"""What a replica tells about itself."""
