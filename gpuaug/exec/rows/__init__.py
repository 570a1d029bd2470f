"""Compiled code that walks a plan: a row of pixels at a time through all its stages, so that the row stays in the cache."""
