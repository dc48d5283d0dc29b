"""Checks whether a proxy ranks losses as longer training does: `rankings` trains and judges with the help of
`agreement`,
`documents` shows the result.
"""
