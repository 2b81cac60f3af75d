"""``python -m plugin``: the same as ``consul-tgw``."""

from plugin.cli import main

if __name__ == "__main__":
    main()
