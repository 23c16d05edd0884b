"""The order of versions, in the room where most ask for it; recipes need it too, so it lies at the base."""

from autokmod.versions import is_at_least, is_at_most, is_older, parse_version, sort_key

__all__ = ["is_at_least", "is_at_most", "is_older", "parse_version", "sort_key"]
