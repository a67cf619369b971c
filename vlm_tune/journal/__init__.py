"""Answers on disk the moment they arrive, so that nothing is asked or paid for twice."""

from vlm_tune.journal.index import KeyIndex
from vlm_tune.journal.journal import Entry, Journal, journal_key

__all__ = ["Entry", "Journal", "KeyIndex", "journal_key"]
