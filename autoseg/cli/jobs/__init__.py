"""Runs the commands that train, from a checked configuration to the printed result.

There is one module per command, of the same name. They import torch, so commands import them last.
"""
