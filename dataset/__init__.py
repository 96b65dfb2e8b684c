"""Rows and characters, and the tools that make, check and fetch them. They know no page and train nothing."""

import roleplay  # noqa: F401 - first, so that Ctrl-C while a library loads ends in one line
