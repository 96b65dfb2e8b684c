"""Rows and characters, and the tools that make, check and fetch them. They know no page and train nothing."""
