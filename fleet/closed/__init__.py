"""Formulas of queueing theory: what the other layers are checked against."""
