"""Networks: MindSpore cells and the dataclasses that describe them."""
