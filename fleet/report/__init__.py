"""Answers as pages: plots as SVG, and documents that need nothing beside themselves."""
