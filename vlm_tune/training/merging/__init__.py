"""Adapter and base as one model on disk, and the proof of it."""
