"""A run as one HTML file, ``selenite rl page RUN``: charts, and attempts side by side."""
