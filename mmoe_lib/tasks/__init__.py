"""The tasks: what the book's models are asked to learn, and where the data come from."""
