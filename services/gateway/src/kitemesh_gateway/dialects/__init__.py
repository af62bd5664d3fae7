"""Dialects: what each route family accepts and how it answers. Two pure halves each, no loop, no driver."""
