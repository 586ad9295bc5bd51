"""What a model or a file of one is worth: quality, size, speed."""
