"""The messages of the parser (jsonargparse), told in one line."""

import re

__all__ = ["plain_message"]


def plain_message(message: str) -> str:
    """Return the parser's message as one line without its inner workings."""
    union = re.search(r"Errors:\n(.*?)\n\s*Given value type", message, re.DOTALL)
    if union:  # an optional setting: its own fault is reported, not that it is not null either
        keys = ".".join(re.findall(r'Parser key "([\w.]+)":', message[: union.start()]))
        given = re.search(r"Given value: (.*)", message)
        others = "NoneType"
        if "- Problem with given" in union[1]:  # a fault inside a section; text is not meant
            others = "NoneType|str"
        faults = re.sub(
            rf"- Expected a <class '({others})'>\S*|- Problem with given .*", "", union[1]
        )
        message = " ".join(faults.split()).removeprefix("- ")
        is_size = re.match(
            r"Expected a <class 'int'> - (Expected a (<class 't|t)uple|expected)", message
        )
        if given and is_size:
            message = f"expected a size such as 96 or [96, 160], got {given[1]}"
        elif given and re.fullmatch(r"Expected an? <class '\w+'>", message):
            message += f". Got value: {given[1]}"
        message = f"{keys}: {message}" if keys else message
    message = re.sub(r'Parser key "([\w.]+)":', r"\1:", message)
    message = re.sub(r"Expected an? <class '(\w+)'>\.? Got value:", r"expected \1, got", message)
    stray = re.search(r"[Uu]nrecognized arguments: (.*)", message)
    if stray:
        return (
            f"{stray[1]!r} belongs to no setting; write --name=value (--help-all lists the names)"
        )
    message = " ".join(message.split())
    wants_list = re.fullmatch(r"([\w.]+): expected list, got ([\w./*, -]+)", message)
    if wants_list:
        message += f"; a list is written --{wants_list[1]} '[{wants_list[2]}]'"
    return message
