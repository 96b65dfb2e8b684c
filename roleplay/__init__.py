"""Everything that training, evaluation and chat share. It never imports gradio, `app` or `train`."""

from roleplay.console import end_on_interrupt, escape_what_cannot_be_encoded
from roleplay.environment import fit_proxies

escape_what_cannot_be_encoded()
end_on_interrupt()
fit_proxies()
