"""The method of LANIT: torch only. It opens no file and imports nothing of its own here, so that importing it is free."""
