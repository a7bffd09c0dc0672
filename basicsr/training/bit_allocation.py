"""The bits of each quantizer that make the sum of errors smallest under an average, exactly."""

from collections.abc import Mapping

from basicsr.utils.errors import OptionsError
from basicsr.utils.extras import require


def allocate_bits(
    errors: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], average: float
) -> dict[str, int]:
    """Return the bits of each tensor with the smallest sum of errors, of all with at most `average` bits for an element.

    This is the multiple-choice knapsack problem. It is solved by integer programming (HiGHS, through scipy).

    Args:
        errors: for each tensor its error with each number of bits that it may have.
        sizes: number of elements of each tensor.
        average: the largest mean of the bits over all elements.

    Raises:
        OptionsError: the fewest bits are more than the average; or scipy is missing.
    """
    if not errors:
        return {}
    fewest = min(bits for choices in errors.values() for bits in choices)
    if not average >= fewest:  # also where it is no number
        raise OptionsError(
            f"An average of {average:g} bits cannot be met: no quantizer has fewer than {fewest}. Give {fewest} or more."
        )
    optimize, sparse = require("scipy.optimize"), require("scipy.sparse")
    places = [(name, bits) for name, choices in errors.items() for bits in choices]
    rows = {name: row for row, name in enumerate(errors)}
    costs = [errors[name][bits] for name, bits in places]
    scale = max(costs) or 1.0
    elements = sum(sizes[name] for name in errors)
    one_each = sparse.csr_array(([1.0] * len(places), ([rows[name] for name, _ in places], range(len(places)))))
    shares = [[bits * sizes[name] / elements for name, bits in places]]
    found = optimize.milp(
        [cost / scale for cost in costs],
        constraints=[
            optimize.LinearConstraint(one_each, 1, 1),
            optimize.LinearConstraint(shares, ub=average * (1 + 1e-9)),
        ],
        integrality=1,
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": 1e-9},
    )
    return {name: bits for (name, bits), chosen in zip(places, found.x, strict=True) if chosen > 0.5}
