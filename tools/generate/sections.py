"""Generated sections of Markdown pages, between a pair of HTML comments."""


def replaced(page: str, name: str, content: str) -> str:
    """Return the page with `content` as its section `name`. Raises LookupError if it has none."""
    begin, end = f"<!-- {name}: make generate -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(f"{begin}\n")
    _, ended, after = rest.partition(f"\n{end}\n")
    if not found or not ended:
        raise LookupError(f"no lines {begin} and {end}")
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}\n{after}"
