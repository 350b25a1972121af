"""From other codes' weights to ours and back, one layout a file."""
