"""Names and shapes of PWC-Net's tensors (no MindSpore is imported here)."""

__all__ = ["DILATIONS", "EXTRACTOR_CHANNELS", "FLOW_CHANNELS", "LEVELS", "tensor_names"]

# Of the pyramid's six levels, from fine (half the frame's size) to coarse (a 64th).
EXTRACTOR_CHANNELS = (16, 32, 64, 96, 128, 196)
# Of the five convolutions that estimate the flow of a level, each seeing all before it.
FLOW_CHANNELS = (128, 128, 96, 64, 32)
LEVELS = (6, 5, 4, 3, 2)  # at which the flow is estimated, in their order
NUM_DISPLACEMENTS = 81  # of the cost volume, 9 x 9
REFINER_CHANNELS = (128, 128, 128, 96, 64, 32, 2)
DILATIONS = (1, 2, 4, 8, 16, 1, 1)
NUMBERS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")  # in published names


def flow_inputs(level: int) -> int:
    """Return the channels that the first convolution of a level sees."""
    if level == 6:
        return NUM_DISPLACEMENTS
    return NUM_DISPLACEMENTS + EXTRACTOR_CHANNELS[level - 1] + 2 + 2


def tensor_names() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return, by published name, the name in `mg.models.pwcnet.network.PWCNet` and the shape."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}

    def add(published: str, own: str, shape: tuple[int, ...], num_out: int) -> None:
        found[f"{published}.weight"] = (f"{own}.weight", shape)
        found[f"{published}.bias"] = (f"{own}.bias", (num_out,))

    channels = 3
    for index, width in enumerate(EXTRACTOR_CHANNELS):
        for number in range(3):
            published = f"netExtractor.net{NUMBERS[index]}.{2 * number}"
            add(published, f"extractor.{index}.convs.{number}", (width, channels, 3, 3), width)
            channels = width
    for order, level in enumerate(LEVELS):
        published, own = f"net{NUMBERS[level - 1]}", f"estimators.{order}"
        channels = flow_inputs(level)
        if level < 6:
            before = flow_inputs(level + 1) + sum(FLOW_CHANNELS)
            add(f"{published}.netUpflow", f"{own}.up_flow", (2, 2, 4, 4), 2)
            add(f"{published}.netUpfeat", f"{own}.up_features", (before, 2, 4, 4), 2)
        for number, width in enumerate((*FLOW_CHANNELS, 2)):
            shape = (width, channels, 3, 3)
            add(f"{published}.net{NUMBERS[number]}.0", f"{own}.convs.{number}", shape, width)
            channels += width
    channels = flow_inputs(2) + sum(FLOW_CHANNELS)
    for number, width in enumerate(REFINER_CHANNELS):
        shape = (width, channels, 3, 3)
        add(f"netRefiner.netMain.{2 * number}", f"refiner.{number}", shape, width)
        channels = width
    return found
