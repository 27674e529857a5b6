"""Images as rows: from any source into a collection, and out of it in batches."""
