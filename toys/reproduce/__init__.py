"""Scripts that repeat published experiments: ``vsae reproduce NAME``, one module per NAME."""
