"""What fits, in one place: training, checking and the page refuse the same things."""

PERSONA = 2000  # characters of a system prompt
SHOWN = 4000  # characters of what the page shows of a persona: name, greeting and openers together
NAME = 100  # characters of who speaks
