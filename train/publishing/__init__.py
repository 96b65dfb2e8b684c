"""What a finished adapter folder holds and where it goes: card, plots, GGUF, upload. How it was trained is unknown."""
