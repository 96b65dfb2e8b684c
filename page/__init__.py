"""The parts of the page that Gradio draws; `app.py` lays them out and wires them."""
