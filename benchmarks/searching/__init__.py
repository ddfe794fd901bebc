"""What the benchmark of the search runs under the compression environment."""
