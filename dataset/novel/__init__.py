"""Novels to speeches with their speakers: knows quotation marks, tags and turns; knows no rows and no model."""
