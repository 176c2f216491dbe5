"""Whether labels that two crops agree on are good ones, on photographs: what is stored in ``DIR`` of ``--work DIR``."""
