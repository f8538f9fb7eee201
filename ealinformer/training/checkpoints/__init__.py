"""What is kept of a training: files with a checksum, what has to be in them, and how they are read without harm."""
