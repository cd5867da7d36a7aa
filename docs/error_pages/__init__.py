"""A Sphinx extension for the page about errors: `texts` from the source, and `directives` that show them."""
