"""Bridges to the tools that people already use; each imports its library only when called."""
