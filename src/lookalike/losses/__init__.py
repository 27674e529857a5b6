"""Margin losses, class centers, and the term that keeps the tower's geometry: pure functions of arrays."""
