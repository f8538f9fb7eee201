"""Tables and figures out of results; reads numbers, trains nothing."""
