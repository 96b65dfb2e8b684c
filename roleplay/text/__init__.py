"""Words and token ids: personas, prompts, rows, their split, the rows nearest to a message. It knows no weights."""
