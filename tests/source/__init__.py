"""The upstream client against a real registry server: what it sends, and what each answer becomes."""
