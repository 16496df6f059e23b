"""The machinery of this one book: experiments, judges, tables, claims, chapters."""
