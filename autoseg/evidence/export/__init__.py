"""A found loss as `files` for other programs; `gather` copies the code that a Python file needs, of `standalone`."""
