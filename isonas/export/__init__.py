"""A trained genome as files that other software loads."""
