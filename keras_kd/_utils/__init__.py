"""What every room may use and none owns: checks, files, data in batches, formatting."""
