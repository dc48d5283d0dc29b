"""What a search has found, in words."""

from __future__ import annotations

from autoseg.search.records import SearchResult, percent


def sentence(result: SearchResult) -> str:
    """What was found, against what could be had without a search."""
    best = result.best
    if not best.confirmed:
        return (
            f"Found a loss for {result.metric}: {percent(best.reward)} with the search's own seed, not confirmed with"
            " fresh ones, so part of it may be luck."
        )
    rivals = {row.name: row.mean for row in result.rows if row.kind == "rival" and row.n}
    mean = next(row.mean for row in result.rows if row.name == best.name)
    beside = ", ".join(f"{name} {percent(other)} ({100 * (mean - other):+.1f})" for name, other in rivals.items())
    against = f"; under the same budget: {beside}" if beside else ""
    ahead = all(mean > other for other in rivals.values())
    found = "Found a loss for" if ahead else "The best loss found is not ahead of every rival for"
    return f"{found} {result.metric}: {percent(mean)} over {len(best.seeds)} fresh seeds{against}.{_doubt(result)}"


def _doubt(result: SearchResult) -> str:
    """Which differences may still be luck; a mark needs five seeds and an interval without zero."""
    unsure = [comparison.rival for comparison in result.comparisons if not comparison.significant]
    rule = "that takes five seeds and a clear lead"
    return f" Not statistically certain against {', '.join(unsure)}: {rule}." if unsure else ""
