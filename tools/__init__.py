"""One module per command; a tool never imports another tool, it reads its records."""
