"""Plumbing that every kitemesh service runs on: bus, store, settings, logs, metrics, health and lifecycle.

It knows how a message travels and how a document is kept, and nothing of what a turn is.
"""
