"""Any method that trains starts from any calibrated network: files, records, what is calibrated anew, the teacher."""

import json
import shutil

import pytest
import torch

from basicsr.models.ptq_model import PTQModel
from basicsr.models.qat_model import QATModel
from basicsr.networks.build import full_precision_network
from basicsr.pipeline import build_model
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.quant.spec import QuantizationError
from basicsr.utils.checkpoint import save_torch
from basicsr.utils.errors import CheckpointError
from basicsr.utils.options import load_options
from tests import tiny

CPU = torch.device("cpu")
METHODS = ("DBDC_Pac", "DDTB", "LSQ", "ODM", "PAMS", "QAT", "QDrop", "BRECQ", "2DQuant")


def options_of(folder, method, *more):
    file = tiny.ROOT / f"options/train/demo_{method}.yml"
    return load_options(file, tiny.overrides(folder, "bit=3", *more, architecture="EDSR"), tell=False)


def make_crops():
    return torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def leave(model, folder):
    """Leave the files of a run that a start is read from."""
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "quantization_map.json").write_text(json.dumps(model.quantization_map.as_dict()))
    file = folder / "models/net_Q_latest.pth"
    save_torch(model.checkpoint(), file)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def calibrated(folder):
    """A network with the bounds of DOBI, and its checkpoint."""
    model = build_model(options_of(folder, "DOBI"), CPU)
    model.calibrate(make_crops())
    return model, leave(model, folder / "DOBI")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_from_dobi_and_trains(folder, calibrated, method):
    start, file = calibrated
    more = ["quantization:coverage=body"] if method == "DBDC_Pac" else []
    options = options_of(folder, method, f"path:pretrain_network_Q={file}", "train:total_iter=4", *more)
    model = build_model(options, CPU)
    model.prepare(make_crops())
    translation, report = model.start_from(file, make_crops())
    assert sum(translation.ways.values()) == len(list(named_quantizers(model.network)))
    assert all(bool(quantizer.calibrated) for _, quantizer in named_quantizers(model.network))
    assert bool(report) == (method == "DDTB")  # whose gates only data can place
    if all(now == "Affine" or now == "AdaRound" for _, _, now, _ in translation.ways):
        assert torch.equal(model.network(make_crops()), start.network(make_crops())) or method == "QAT"
    batch = {"lq": make_crops(), "gt": torch.rand(2, 3, 48, 48), "index": torch.arange(2)}
    losses = model.optimize_parameters(batch)
    assert all(bool(loss.isfinite()) for loss in losses.values())


def test_a_trained_start_leaves_the_teacher_as_it_is(folder, calibrated):
    start = build_model(options_of(folder, "QAT"), CPU)
    start.start_from(calibrated[1], make_crops())
    with torch.no_grad():
        for parameter in start.network.parameters():
            parameter.mul_(1.01)
    file = leave(start, folder / "QAT")
    model = build_model(options_of(folder, "2DQuant", f"path:pretrain_network_Q={file}"), CPU)
    assert isinstance(model, PTQModel) and isinstance(start, QATModel)
    model.start_from(file, make_crops())
    untouched = full_precision_network(model.options)
    crops = make_crops()
    with torch.no_grad():
        assert torch.equal(model.full_precision(crops), untouched(crops))
        torch.testing.assert_close(model.network(crops), start.network(crops))


def test_what_the_start_leaves_in_full_precision_is_calibrated_anew(folder):
    start = build_model(options_of(folder, "DOBI", "quantization:exclude=['*.act_quantizer']"), CPU)
    start.calibrate(make_crops())
    file = leave(start, folder / "weights_only")
    model = build_model(options_of(folder, "LSQ", f"path:pretrain_network_Q={file}"), CPU)
    translation, report = model.start_from(file, make_crops())
    activations = [name for name, _ in named_quantizers(model.network, "activation")]
    assert translation.calibrated == [row.name for row in report] == activations


def test_other_bits_are_refused_by_name(folder, calibrated):
    model = build_model(options_of(folder, "LSQ", "bit=2"), CPU)
    with pytest.raises(QuantizationError, match="'body.0.conv1.*has 2 bits and the one to start from 3"):
        model.start_from(calibrated[1], make_crops())


def test_without_the_record_a_start_of_other_kinds_is_told_what_to_lay_beside_it(folder, calibrated):
    alone = folder / "elsewhere/net_Q_latest.pth"
    alone.parent.mkdir()
    shutil.copy(calibrated[1], alone)
    same = build_model(options_of(folder, "2DQuant"), CPU)
    same.start_from(alone, make_crops())  # of the same kinds no record is needed
    with pytest.raises(CheckpointError, match="lay the 'quantization_map.json' of the run that made it beside it"):
        build_model(options_of(folder, "LSQ"), CPU).start_from(alone, make_crops())
    (alone.parent / "quantization_map.json").write_text("{}")
    with pytest.raises(CheckpointError, match="This is not a quantization map"):
        same.start_from(alone, make_crops())


def test_a_start_that_was_never_calibrated_is_refused(folder):
    model = build_model(options_of(folder, "DOBI"), CPU)
    with pytest.raises(CheckpointError, match="was never calibrated"):
        model.start_from(leave(model, folder / "raw"), make_crops())
