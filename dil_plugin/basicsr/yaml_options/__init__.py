"""The YAML of a DILModel run, typed: what may stand in it, what it means, and the reference made of that."""
