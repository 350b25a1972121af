"""The commands of ``vsae``, one module each, with ``main(argv) -> exit status``."""
