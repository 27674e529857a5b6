"""How good vectors are: who is searched in what, metrics over ranks, a report."""
