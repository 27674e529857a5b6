"""What a collection holds, seen by its vectors: groups, labels that don't fit, clusters, a map. No effects."""
