"""Write every file, and every part of a file, that is generated from the code: `make generate`.

Prints the files that changed. The tests compare and never write.
"""

import sys

from tools.generate.products import PRODUCTS, ROOT


def main() -> int:
    """Write what is out of date; return the exit code."""
    for product in PRODUCTS:
        content = product.content()
        if product.present() != content:
            product.path.parent.mkdir(parents=True, exist_ok=True)
            product.path.write_text(content, "utf-8")
            print(f"wrote {product.path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
