"""What is served: programs, weights, tables and vocabularies, verified."""
