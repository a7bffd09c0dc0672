"""Files of weights: what is read, what is refused, and how a mismatch is explained."""

import argparse
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from basicsr.archs import build_network
from basicsr.utils.checkpoint import load_torch
from basicsr.utils.errors import CheckpointError
from basicsr.utils.weights import load_network_weights, load_weights_file
from tests import tiny

TINY = {"type": "SwinIR", "embed_dim": 12, "depths": [2], "num_heads": [2], "upscale": 2}


@pytest.fixture
def weights():
    return {"conv.weight": torch.rand(2, 3), "conv.bias": torch.rand(2)}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_every_usual_layout(tmp_path, weights):
    other = {key: value + 1 for key, value in weights.items()}
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    for name, content in {
        "bare.pth": weights,
        "params.pth": {"params": weights},
        "ema.pt": {"params": other, "params_ema": weights},
        "wrapped.pth": {"params": wrapped, "iter": 5},
        "old.pth": weights,
    }.items():
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=name != "old.pth")
        assert equal(load_weights_file(tmp_path / name), weights), name
    save_file(weights, tmp_path / "weights.safetensors")
    assert equal(load_weights_file(tmp_path / "weights.safetensors"), weights)
    assert equal(load_weights_file(tmp_path / "ema.pt", param_key="params"), other)


def test_weights_that_are_no_numbers_are_refused(tmp_path, weights):
    for value in (float("nan"), float("inf")):
        torch.save({**weights, "conv.bias": torch.tensor([1.0, value])}, tmp_path / "a.pth")
        with pytest.raises(
            CheckpointError, match=r"not finite .*, in 1 tensors such as conv\.bias: the training .* diverged"
        ):
            load_weights_file(tmp_path / "a.pth")


def test_codes_of_others_are_not_taken_for_weights():
    network = build_network({"type": "EDSR", "upscale": 2, **tiny.NETWORKS["EDSR"]})
    codes = {key: value.to(torch.int8) for key, value in network.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"are whole numbers of type torch\.int8 in .* tensors such as .*: codes of"
    ):
        load_network_weights(network, codes, "a.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32_and_integers_stay(tmp_path, dtype):
    torch.save({"w": torch.ones(3, dtype=dtype), "bits": torch.tensor(4)}, tmp_path / "half.pth")
    loaded = load_weights_file(tmp_path / "half.pth")
    assert loaded["w"].dtype == torch.float32 and loaded["bits"].dtype == torch.int64


def test_missing_empty_and_damaged_files(tmp_path, weights):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_weights_file(tmp_path / "none.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CheckpointError, match="0 bytes"):
        load_weights_file(tmp_path / "empty.pth")
    torch.save(weights, tmp_path / "zip.pth")
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "safe.safetensors")
    for name in ("zip.pth", "old.pth", "safe.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for length in (3, 40, len(whole) // 2, len(whole) - 3):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match="damaged|cut off"):
                load_weights_file(tmp_path / name)
    (tmp_path / "text.pth").write_text("<html>404</html>")
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights_file(tmp_path / "text.pth")


def test_files_that_would_run_code_are_refused(tmp_path):
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"params": Attack()}, tmp_path / "attack.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Attack(), protocol=2))
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("attack.pth", "plain.pth", "module.pth"):
        with pytest.raises(CheckpointError, match="refused: it holds objects that would run code"):
            load_weights_file(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [{}, {"params": {}}, {"iter": 3}, {"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(1)}}, [1], torch.ones(2)],
)
def test_files_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="holds (no (tensors|weights)|nothing)"):
        load_weights_file(tmp_path / "file.pth")


def test_the_name_of_a_file_need_not_tell_its_format(tmp_path, weights):
    for name in ("N.SAFETENSORS", "safetensors.pth", "no_suffix"):
        save_file(weights, tmp_path / name)
    for name in ("N.PTH", "torch.safetensors"):
        torch.save({"params": weights}, tmp_path / name)
    for name in ("N.SAFETENSORS", "safetensors.pth", "no_suffix", "N.PTH", "torch.safetensors"):
        assert equal(load_weights_file(tmp_path / name), weights), name


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_numpy_beside_weights_are_data(tmp_path, weights, module):
    numbers = {"psnr": np.float64(31.5), "best": np.float32(2), "iter": np.int64(7), "done": np.bool_(True)}
    numbers |= {"name": np.str_("x"), "at": np.datetime64("2026-01-01"), "mean": np.complex64(1j)}
    torch.save({"params": weights, **numbers}, tmp_path / "file.pth", _use_new_zipfile_serialization=False)
    name = f"c{np.float64(0).__reduce__()[0].__module__}\nscalar\n".encode()
    data = (tmp_path / "file.pth").read_bytes()
    assert name in data
    (tmp_path / "file.pth").write_bytes(data.replace(name, f"c{module}\nscalar\n".encode()))
    assert equal(load_weights_file(tmp_path / "file.pth"), weights)
    loaded = load_torch(tmp_path / "file.pth")
    assert {key: loaded[key] for key in numbers} == numbers


def test_what_is_refused_is_named(tmp_path):
    torch.save({"params": {"w": torch.ones(1)}, "log": np.ones(3)}, tmp_path / "array.pth")
    with pytest.raises(
        CheckpointError, match=r"would run code when they are read, such as numpy\.\w+\.multiarray\._recon"
    ):
        load_weights_file(tmp_path / "array.pth")
    torch.save({"args": argparse.Namespace(lr=1), "params": {}}, tmp_path / "args.pth")
    with pytest.raises(CheckpointError, match=r"such as argparse\.Namespace"):
        load_weights_file(tmp_path / "args.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript
        torch.jit.script(nn.Linear(1, 1)).save(tmp_path / "script.pt")
        with pytest.raises(CheckpointError, match="TorchScript archive, a program and no weights"):
            load_weights_file(tmp_path / "script.pt")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "pointer of Git LFS.*`git lfs pull`"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "web page or another text, as a failed download"),
        (b'{"psnr": 31}', "text such as JSON"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is a picture. Give a file of weights"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5.*Ask for the weights of PyTorch"),
        (b"\x93NUMPY\x01\x00" + bytes(40), "an array of numpy. Ask"),
        (b"\x1f\x8b\x08" + bytes(40), "is an archive. Unpack it"),
        (bytes(4) + b"TFL3" + bytes(40), "damaged, cut off or no file of PyTorch"),
    ],
)
def test_other_files_are_not_said_to_run_code(tmp_path, start, message):
    (tmp_path / "file.pth").write_bytes(start)
    with pytest.raises(CheckpointError, match=message):
        load_weights_file(tmp_path / "file.pth")


@pytest.mark.parametrize("prefix", ["sr_model.", "lit.backbone.", "student.net."])
@pytest.mark.parametrize("others", [{}, {"loss.vgg.weight": torch.ones(3), "psnr.total": torch.ones(())}])
def test_wrappers_of_any_name_are_passed_over(prefix, others, caplog):
    network, source = build_network(TINY), build_network(TINY)
    wrapped = {**others, **{prefix + key: value for key, value in source.state_dict().items()}}
    with caplog.at_level("WARNING"):
        load_network_weights(network, wrapped, "x.pth")
    assert equal(network.state_dict(), source.state_dict())
    assert (f"whose names begin with '{prefix}'. 2 others are left out" in caplog.text) == bool(others)


def test_weights_of_another_network_in_a_wrapper_are_refused_by_their_names():
    foreign = {f"model.features.{i}.weight": torch.ones(1) for i in range(5)}
    with pytest.raises(CheckpointError, match=r"5 unexpected \(model\.features\.0\.weight"):
        load_network_weights(build_network(TINY), foreign, "x.pth")


@pytest.mark.parametrize("lacks", ["whole", "in the middle"])
def test_a_mismatch_by_a_forgotten_tensor_names_it(lacks):
    options = {"type": "EDSR", "num_feat": 8, "num_block": 4, "upscale": 2}
    network = build_network(options)
    forgotten = "body.2.conv1.weight" if lacks == "in the middle" else "conv_after_body.bias"
    state_dict = {key: value for key, value in network.state_dict().items() if key != forgotten}
    with pytest.raises(CheckpointError, match=re.escape(f"1 missing ({forgotten})")):
        load_network_weights(network, state_dict, "x.pth")


def test_param_key_that_is_absent(tmp_path, weights):
    torch.save({"params": weights}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="no entry 'ema'.*Its entries: 'params'"):
        load_weights_file(tmp_path / "file.pth", param_key="ema")


def test_official_buffers_are_dropped():
    network, source = build_network(TINY), build_network(TINY)
    prefix = "layers.0.residual_group.blocks"
    buffers = {
        f"{prefix}.1.attn_mask": torch.ones(4, 64, 64),
        f"{prefix}.0.attn.relative_position_index": torch.ones(64, 64),
    }
    load_network_weights(network, {**source.state_dict(), **buffers}, "x.pth")
    assert equal(network.state_dict(), source.state_dict())


def test_mismatches_are_explained():
    network = build_network(TINY)

    def problem(state_dict):
        with pytest.raises(CheckpointError) as error:
            load_network_weights(network, state_dict, "folder/file.pth")
        assert "'folder/file.pth' do not fit the network SwinIR" in str(error.value)
        return str(error.value)

    larger = build_network({**TINY, "upscale": 4}).state_dict()
    assert "the file holds a network with upscale 4, the options ask for upscale 2" in problem(larger)
    deeper = build_network({**TINY, "depths": [4], "embed_dim": 24}).state_dict()
    assert "depths (4,), embed_dim 24, the options ask for depths (2,), embed_dim 12" in problem(deeper)
    foreign = {f"body.{i}.weight": torch.ones(1) for i in range(5)}
    message = problem(foreign)
    assert "another architecture" in message
    assert "5 unexpected (body.0.weight, body.1.weight, body.2.weight, ..)" in message
    cut = network.state_dict()
    del cut["norm.weight"]
    cut["extra.bounds"] = torch.ones(1)
    assert "1 missing (norm.weight) and 1 unexpected (extra.bounds)" in problem(cut)
    load_network_weights(network, cut, "file.pth", strict=False)


def test_another_scale_of_a_network_that_cannot_tell_its_options():
    class Plain(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.upsample = nn.Conv2d(4, 3 * scale**2, 3)

    with pytest.raises(CheckpointError, match=re.escape("another scale factor; upsample.weight is (48, 4, 3, 3)")):
        load_network_weights(Plain(2), Plain(4).state_dict(), "file.pth")
    changed = Plain(2).state_dict() | {"body.bias": torch.ones(7)}
    with pytest.raises(CheckpointError, match=re.escape("1 shapes differ; body.bias is (7,) in the file and (4,)")):
        load_network_weights(Plain(2), changed, "file.pth")
