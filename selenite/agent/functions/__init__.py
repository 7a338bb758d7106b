"""Single requests for functions of every kind, and the calls that answer them."""
