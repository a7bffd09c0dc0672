"""Codes survive packing, at the size that was promised and in the layout that was described."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.deploy.bit_packing import pack_codes, packed_size, unpack_codes
from basicsr.quant.spec import QuantizationError

SHAPES = st.lists(st.integers(0, 7), min_size=0, max_size=4)


@settings(max_examples=150, deadline=None)
@given(bits=st.integers(2, 8), shape=SHAPES, seed=st.integers(0, 2**31))
def test_round_trip(bits, shape, seed):
    codes = torch.randint(2**bits, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack_codes(codes, bits)
    assert packed.dtype == torch.uint8 and packed.shape == (packed_size(codes.numel(), bits),)
    assert packed.numel() == -(-codes.numel() * bits // 8)
    assert torch.equal(unpack_codes(packed, bits, shape), codes)


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_layout_is_the_documented_one(bits):
    codes = torch.randint(2**bits, (29,), generator=torch.Generator().manual_seed(bits))
    stream = [(int(code) >> bit) & 1 for code in codes for bit in range(bits)]
    stream += [0] * (-len(stream) % 8)
    expected = [sum(stream[8 * k + i] << i for i in range(8)) for k in range(len(stream) // 8)]
    assert pack_codes(codes.to(torch.uint8), bits).tolist() == expected


def test_codes_that_do_not_fit_are_refused():
    with pytest.raises(QuantizationError, match="code 4 does not fit into 2 bits"):
        pack_codes(torch.tensor([0, 4], dtype=torch.uint8), 2)
    with pytest.raises(QuantizationError, match="bits is 9"):
        pack_codes(torch.zeros(1, dtype=torch.uint8), 9)


def test_a_wrong_number_of_bytes_is_refused():
    packed = pack_codes(torch.zeros(9, dtype=torch.uint8), 3)
    for wrong, shape in ((packed[:-1], (9,)), (packed, (3, 4)), (packed.float(), (9,))):
        with pytest.raises(QuantizationError, match="take .* bytes"):
            unpack_codes(wrong, 3, shape)
