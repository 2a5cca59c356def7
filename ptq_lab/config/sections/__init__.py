"""The declarations, one class per INI section: text in the INI's words, no behaviour."""
