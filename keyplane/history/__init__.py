"""Histories: what clients asked and were told, and whether one order of it all explains it."""
