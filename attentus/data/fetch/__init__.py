"""Public datasets: a catalogue, downloads that survive interruption, and steps for those behind a registration."""

from attentus.data.fetch.getting import get
from attentus.data.fetch.known import Archive, Entry, catalogue, entry

__all__ = ["Archive", "Entry", "catalogue", "entry", "get"]
