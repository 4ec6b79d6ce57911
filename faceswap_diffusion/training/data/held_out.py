"""Which faces a small network is measured on."""


def hold_out(count: int, num_validation: int) -> tuple[list[int], list[int]]:
    """Divides rows into those to train on and those held out, which are evenly spaced among them.

    Args:
        count (`int`): Number of rows.
        num_validation (`int`): How many to hold out.

    Raises:
        ValueError: If none is left to train on.
    """
    if num_validation >= count:
        raise ValueError(f"{count} faces are too few to hold out {num_validation}: lower --num_validation")
    stride = count // num_validation
    held_out = range(0, stride * num_validation, stride)
    return [row for row in range(count) if row not in held_out], list(held_out)
