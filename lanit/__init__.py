"""The method of LANIT: torch only. It opens no file, and importing it is free."""
