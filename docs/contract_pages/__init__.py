"""A Sphinx extension for the pages about the contract: `facts` from the suite, and `directives` that show them."""
