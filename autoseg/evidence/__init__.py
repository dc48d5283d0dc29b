"""Results of runs for people: comparisons, checks, exports and reports.

`comparison/` says which loss is better and how sure that is, `trust/` whether the proxy ranks losses correctly;
`export/` writes a loss for use without autoseg, `report/` shows everything as one page; `figures` draws, `sampled`
computes the numbers of curves.
"""
