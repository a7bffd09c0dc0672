"""What a run that is to be continued finds: another recipe, another length, damaged states; in one process, with a tiny network."""

import math
import shutil

import pytest
import torch

from basicsr import train as train_command
from basicsr.models.ptq_model import PTQModel
from tests import tiny

pytestmark = pytest.mark.slow

STEPS = "train:scheduler={type: MultiStepLR, milestones: [3, 5]}"
COSINE = "train:scheduler={type: CosineAnnealingLR, warmup_iter: 0, eta_min: 0}"
SHORT = ["val:val_freq=100", "val:full_precision=false", "val:best_metric=psnr"]


def train(folder, *more, resume=True, opt=tiny.TRAIN, **kind):
    overrides = tiny.train_overrides(folder, *SHORT, *more, **kind)
    arguments = ["-opt", str(opt), "--root", str(folder), *(["--auto_resume"] if resume else [])]
    return train_command.main([*arguments, "--force_yml", *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Makes a run of 4 iterations with the states 2 and 4, once for each schedule."""
    folders = {}

    def make(schedule):
        if schedule not in folders:
            folders[schedule] = tmp_path_factory.mktemp("finished")
            assert train(folders[schedule], "train:total_iter=4", schedule, resume=False) == 0
        return folders[schedule]

    return make


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run with milestones, and its schedule."""
    shutil.copytree(finished(STEPS), tmp_path, dirs_exist_ok=True)
    return tmp_path, STEPS


@pytest.fixture
def cosine(finished, tmp_path):
    """A copy of the run with a cosine."""
    shutil.copytree(finished(COSINE), tmp_path, dirs_exist_ok=True)
    return tmp_path


def refused(code, capfd):
    error = capfd.readouterr().err
    assert code == 2 and "Traceback" not in error, error
    return error


def network(folder, iteration):
    return torch.load(folder / f"experiments/tiny/models/net_Q_{iteration}.pth", weights_only=True)["params"]


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)


OTHERS = {
    "train:optim_bound:lr=0.1": "'train:optim_bound:lr' was 0.001 and is now 0.1",
    "train:optim_bound={type: AdamW, lr: 1e-3}": "'train:optim_bound:type' was 'Adam' and is now 'AdamW'",
    "train:batch_size=4": "'train:batch_size' was 2 and is now 4",
    "bit=3": "'bit' was 4 and is now 3",
    "manual_seed=7": "'manual_seed' was 0 and is now 7",
    "network_g:img_range=255": "'network_g:img_range' was 1.0 and is now 255.0",
    "train:pixel_loss=null": "'train:pixel_loss:type' was 'L1Loss' and is now not given",
    "calibration:activations={type: MinMax}": "'calibration:activations:type' was 'DOBI' and is now 'MinMax'",
    "datasets:train:lq_size=24": "'datasets:train:lq_size' was 16 and is now 24",
    "quantization:exclude=[layers.0.*]": "'quantization:exclude' was [] and is now ['layers.0.*']",
}


@pytest.mark.parametrize("override", OTHERS)
def test_another_recipe_is_told_by_the_option_that_differs(run, capfd, override):
    folder, schedule = run
    error = refused(train(folder, "train:total_iter=4", schedule, override), capfd)
    message = error.splitlines()[-1]
    assert OTHERS[override] in message and "4.state' was made with another recipe" in message
    assert len(message) < 600, message


def test_a_long_list_of_differences_is_cut(run, capfd):
    folder, schedule = run
    changes = [
        "bit=3",
        "manual_seed=1",
        "train:batch_size=4",
        "datasets:train:lq_size=8",
        "datasets:train:num_images=3",
    ]
    error = refused(train(folder, "train:total_iter=4", schedule, *changes), capfd)
    assert "; 2 more options differ. " in error


def watch_rates(monkeypatch):
    rates = []
    step = PTQModel.optimize_parameters

    def watched(self, batch):
        rates.append(self.optimizer.param_groups[0]["lr"])
        return step(self, batch)

    monkeypatch.setattr(PTQModel, "optimize_parameters", watched)
    return rates


def test_a_training_becomes_longer_where_its_rates_stay_what_they_were(run, tmp_path_factory, capfd):
    folder, schedule = run
    assert train(folder, "train:total_iter=6", schedule) == 0
    assert "'train:total_iter' was 4 and is now 6" in capfd.readouterr().err
    whole = tmp_path_factory.mktemp("whole")
    assert train(whole, "train:total_iter=6", schedule, resume=False) == 0
    assert same(network(folder, 6), network(whole, 6))


def test_a_cosine_becomes_longer_only_where_the_user_says_so(cosine, capfd, monkeypatch):
    error = refused(train(cosine, "train:total_iter=6", COSINE), capfd)
    assert "'train:total_iter' was 4 and is now 6" in error and "train:allow_new_length=true" in error
    rates = watch_rates(monkeypatch)
    assert train(cosine, "train:total_iter=6", COSINE, "train:allow_new_length=true") == 0
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * k / 6)) / 2 for k in (4, 5)])


def test_another_schedule_needs_the_same_rates_so_far(cosine, capfd):
    error = refused(train(cosine, "train:total_iter=4", STEPS), capfd)
    assert "'train:scheduler:type' was 'CosineAnnealingLR' and is now 'MultiStepLR'" in error
    assert "rates of its 4 iterations would have been others" in error


def test_milestones_to_come_may_change_those_that_were_may_not(run, capfd, monkeypatch):
    folder, _ = run
    rates = watch_rates(monkeypatch)
    later = "train:scheduler={type: MultiStepLR, milestones: [3, 4], gamma: 0.1}"
    assert "'train:scheduler:gamma' was not given and is now 0.1" in refused(
        train(folder, "train:total_iter=5", later), capfd
    )
    later = "train:scheduler={type: MultiStepLR, milestones: [3, 4], gamma: 0.5}"
    assert train(folder, "train:total_iter=5", later) == 0
    assert rates == [2.5e-4]
    earlier = "train:scheduler={type: MultiStepLR, milestones: [2, 7]}"
    error = refused(train(folder, "train:total_iter=8", earlier), capfd)
    assert "'train:scheduler:milestones' was [3, 4] and is now [2, 7]" in error


def test_a_training_cannot_become_shorter_than_it_is(run, capfd):
    folder, schedule = run
    error = refused(train(folder, "train:total_iter=3", schedule), capfd)
    assert "had 4 iterations already, more than 'train:total_iter' 3" in error


def test_a_method_in_stages_keeps_its_length(tmp_path, capfd):
    opt = tiny.ROOT / "options/train/demo_DBDC_Pac.yml"
    changes = {"opt": opt, "optimizers": ("optim_activation", "optim_weight")}
    assert train(tmp_path, "train:total_iter=4", resume=False, **changes) == 0
    error = refused(train(tmp_path, "train:total_iter=6", "train:allow_new_length=true", **changes), capfd)
    assert "'train:total_iter' was 4 and is now 6" in error and "stages share the iterations" in error


def cut(file):
    file.write_bytes(file.read_bytes()[:200])


DAMAGES = {
    "state": ("training_states/4.state", cut),
    "no state": ("training_states/4.state", lambda file: torch.save({"params": {}}, file)),
    "network": ("models/net_Q_4.pth", cut),
    "no network": ("models/net_Q_4.pth", lambda file: file.unlink()),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_newest_state_gives_way_to_the_one_before(run, finished, capfd, kind):
    folder, schedule = run
    name, damage = DAMAGES[kind]
    damage(folder / "experiments/tiny" / name)
    state = folder / "experiments/tiny/training_states/4.state"
    error = refused(train(folder, "train:total_iter=4", schedule, f"path:resume_state={state}", resume=False), capfd)
    good = state.with_name("2.state")
    assert str(folder / "experiments/tiny" / name) in error and f"path:resume_state={good}" in error
    assert train(folder, "train:total_iter=4", schedule) == 0
    error = capfd.readouterr().err
    assert f"An older state is taken: '{good}'" in error and name in error
    assert "Continuing 'tiny' after iteration 2" in error
    assert same(network(folder, 4), network(finished(STEPS), 4))
    log = next((folder / "experiments/tiny").glob("*.log"))
    assert any("An older state is taken" in file.read_text() for file in log.parent.glob("*.log"))


def test_nothing_is_begun_anew_where_no_state_can_be_used(run, capfd):
    folder, schedule = run
    for file in (folder / "experiments/tiny/training_states").iterdir():
        cut(file)
    before = sorted((folder / "experiments").rglob("*"))
    error = refused(train(folder, "train:total_iter=4", schedule), capfd)
    assert "None of the 2 training states" in error and "Without --auto_resume the run begins anew" in error
    assert sorted((folder / "experiments").rglob("*")) == before


@pytest.mark.parametrize("file", ["models/net_Q_4.pth", "options.yml", "absent.state", "."])
def test_what_is_no_training_state_is_named(run, capfd, file):
    folder, schedule = run
    asked = folder / "experiments/tiny" / file
    error = refused(train(folder, "train:total_iter=4", schedule, f"path:resume_state={asked}", resume=False), capfd)
    assert str(asked) in error


def test_a_state_whose_content_does_not_fit_is_told(run, capfd):
    folder, schedule = run
    file = folder / "experiments/tiny/training_states/4.state"
    state = torch.load(file, weights_only=True)
    state["optimizer"]["param_groups"][0]["params"].append(10**6)
    torch.save(state, file)
    error = refused(train(folder, "train:total_iter=4", schedule), capfd)
    assert "does not fit the model 'PTQModel'" in error
