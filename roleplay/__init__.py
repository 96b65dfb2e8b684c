"""Everything that training, evaluation and chat share. It never imports gradio, `app` or `train`."""
