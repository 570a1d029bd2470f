"""Loading: which samples, in which order, read from where, decoded by what."""
