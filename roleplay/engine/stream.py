"""A reply's text as its tokens come. It knows no model."""

from roleplay.text.prompts import PromptEncoder

HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of the first bytes of a character


class TextStream:
    """A reply's text as its tokens come: `text` never ends in half a character."""

    def __init__(self, encoder: PromptEncoder) -> None:
        self._encoder = encoder
        self._open: list[int] = []  # tokens that do not end a character yet
        self.text = ""

    def add(self, token: int) -> None:
        """Only the tokens since the last whole character are decoded, so a long reply costs no more per token."""
        self._open.append(token)
        piece = self._encoder.decode(self._open)
        if not piece.endswith(HALF_CHARACTER):
            self.text += piece
            self._open.clear()

    def close(self) -> None:
        """Take what is left as it is: nothing comes to complete it."""
        self.text += self._encoder.decode(self._open)
        self._open.clear()
