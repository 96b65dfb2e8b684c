"""Everything that training, evaluation and chat share. It never imports gradio, `app` or `train`."""

from roleplay.console import end_on_interrupt, escape_what_cannot_be_encoded
from roleplay.environment import fit_home, fit_network
from roleplay.errors import one_line_errors

escape_what_cannot_be_encoded()
with one_line_errors():  # what is not as it should be would end the import of a library, before any command's own edge
    fit_home()
    fit_network()
end_on_interrupt()
