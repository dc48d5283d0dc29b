"""From a run to something a person can look at or take away.

`comparison/` says which loss is better and how sure that is, `trust/` whether the proxy ranks losses rightly;
`export/` takes a loss out of autoseg, `report/` shows all of it as one page; `figures` draws, `sampled` has the numbers
of curves.
"""
