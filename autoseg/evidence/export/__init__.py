"""A found loss as `formats` for other programs; `gather` copies the code that a Python file needs, of `standalone`."""
