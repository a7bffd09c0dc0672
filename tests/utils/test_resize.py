import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.utils.image import read_image
from basicsr.utils.resize import crop_to_multiple, downscale_image, imresize, upscale_image

SCALES = (2, 3, 4)


def _keys_kernel(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def _oracle_matrix(length, scale):
    """Matlab's weights, one at a time, with its coordinates that count from 1 and its mirrored index table."""
    width = 4 / min(scale, 1)
    matrix = np.zeros((int(np.ceil(length * scale - 1e-9)), length))
    mirrored = list(range(length)) + list(range(length - 1, -1, -1))
    for row in range(len(matrix)):
        centre = (row + 1) / scale + 0.5 * (1 - 1 / scale)
        left = int(np.floor(centre - width / 2))
        weights = [
            _keys_kernel((centre - index) * min(scale, 1)) for index in range(left, left + int(np.ceil(width)) + 2)
        ]
        for offset, weight in enumerate(weights):
            matrix[row, mirrored[(left + offset - 1) % (2 * length)]] += weight / sum(weights)
    return matrix


def _factor(scale, down):
    return 1 / scale if down else float(scale)


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [(24, 36), (13, 7), (5, 1), (2, 3)])
def test_agrees_with_an_independent_matrix_of_weights(size, scale, down):
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    factor = _factor(scale, down)
    expected = _oracle_matrix(size[0], factor) @ images.numpy() @ _oracle_matrix(size[1], factor).T
    np.testing.assert_allclose(imresize(images, factor).numpy(), expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([1 / 2, 1 / 3, 1 / 4, 2.0, 3.0, 4.0]),
    st.floats(0, 1),
)
def test_sizes_are_rounded_up_and_constants_stay(height, width, scale, value):
    result = imresize(torch.full((1, 1, height, width), value, dtype=torch.float64), scale)
    assert result.shape == (1, 1, np.ceil(np.round(height * scale, 6)), np.ceil(np.round(width * scale, 6)))
    torch.testing.assert_close(result, torch.full_like(result, value))


@settings(max_examples=15, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2), st.sampled_from([1 / 3, 1 / 2, 4.0]), st.integers(0, 2**31))
def test_is_linear(a, b, scale, seed):
    x, y = torch.rand(2, 1, 3, 9, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    together = imresize(a * x + b * y, scale)
    torch.testing.assert_close(together, a * imresize(x, scale) + b * imresize(y, scale), rtol=0, atol=1e-12)


def test_has_the_right_gradient():
    images = torch.rand(1, 2, 6, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize(x, 1 / 3), images)
    assert torch.autograd.gradcheck(lambda x: imresize(x, 2.0), images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_type(dtype):
    assert imresize(torch.rand(1, 3, 8, 8, dtype=dtype), 0.5).dtype == dtype


@pytest.mark.parametrize("scale", SCALES)
def test_integers_are_rounded_half_up_after_each_pass(scale):
    image = np.random.default_rng(scale).integers(0, 256, (6 * scale, 5 * scale, 3)).astype(np.uint8)
    rows = np.clip(np.floor(np.einsum("oi,iwc->owc", _oracle_matrix(6 * scale, 1 / scale), image) + 0.5 + 1e-9), 0, 255)
    both = np.clip(np.floor(np.einsum("oi,hic->hoc", _oracle_matrix(5 * scale, 1 / scale), rows) + 0.5 + 1e-9), 0, 255)
    result = downscale_image(image, scale)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, both.astype(np.uint8))


def test_16_bits_stay_16_bits():
    image = np.random.default_rng(0).integers(0, 65536, (12, 12, 3)).astype(np.uint16)
    result = downscale_image(image, 3)
    exact = imresize(torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None], 1 / 3)[0].permute(1, 2, 0)
    assert result.dtype == np.uint16
    assert np.abs(result - exact.clamp(0, 65535).numpy()).max() < 2
    assert downscale_image(np.full((4, 4, 3), 65535, np.uint16), 2).min() == 65535


@pytest.mark.parametrize("scale", SCALES)
def test_constant_images_stay_constant(scale):
    for value in (0, 1, 127, 255):
        assert set(downscale_image(np.full((12, 24, 3), value, np.uint8), scale).flatten()) == {value}
        assert set(upscale_image(np.full((5, 4, 3), value, np.uint8), scale).flatten()) == {value}


def test_crops_at_the_bottom_and_right():
    image = np.arange(7 * 10 * 3).reshape(7, 10, 3)
    cropped = crop_to_multiple(image, 3)
    np.testing.assert_array_equal(cropped, image[:6, :9])
    assert crop_to_multiple(image[:2], 3).size == 0


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("index", range(6))
def test_agrees_with_the_reference(reference, index, scale):
    arrays = np.load(reference / "imresize.npz")
    image = arrays[f"in{index}"]
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    for name, factor in (("down", 1 / scale), ("up", float(scale))):
        result = imresize(tensor, factor)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(result, arrays[f"{name}{scale}_float_{index}"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(downscale_image(image, scale), arrays[f"down{scale}_uint8_{index}"])


def _benchmark_pairs(shared, scale, sets):
    for name in sets:
        folder = shared / "data" / "benchmark" / name
        for file in sorted((folder / "HR").glob("*.png")):
            lr = read_image(folder / "LR_bicubic" / f"X{scale}" / f"{file.stem}x{scale}.png")
            yield lr, crop_to_multiple(read_image(file), scale)


@pytest.mark.parametrize("scale", SCALES)
def test_reproduces_the_benchmarks_bit_for_bit(shared, scale):
    for lr, hr in _benchmark_pairs(shared, scale, ("Set5", "Set14")):
        np.testing.assert_array_equal(downscale_image(hr, scale), lr)


@pytest.mark.parametrize(("scale", "mean"), [(2, 33.673), (3, 30.403), (4, 28.429)])
def test_bicubic_baseline_of_set5(shared, reference, scale, mean):
    to_y = np.array([65.481, 128.553, 24.966]) / 255
    results = []
    for lr, hr in _benchmark_pairs(shared, scale, ("Set5",)):
        difference = (upscale_image(lr, scale).astype(np.float64) - hr) @ to_y
        results.append(10 * np.log10(255**2 / np.mean(difference[scale:-scale, scale:-scale] ** 2)))
    expected = np.load(reference / "metrics.npz")["set5_bicubic_psnr_y"][scale - 2]
    np.testing.assert_allclose(results, expected, atol=1e-4)
    assert np.mean(results) == pytest.approx(mean, abs=1e-3)
