"""The commands: lora, evaluate, export, push, each one page that reads top to bottom; their work is in the rooms."""

import roleplay  # noqa: F401 - first, so that Ctrl-C while a library loads ends in one line
