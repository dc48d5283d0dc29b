"""What a command does once its configuration is checked: the whole way to an ended run, and what is said of it.

One module for each command that trains, of the same name. They bring torch: commands import them last.
"""
