"""Key and value storage for attention."""
