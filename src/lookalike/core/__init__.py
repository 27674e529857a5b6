"""Words that every room shares; imports no other room."""
