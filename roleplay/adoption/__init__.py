"""Adapters of other trainers: what their files mean and how their matrices become ours. It runs nothing of theirs."""
